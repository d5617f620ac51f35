"""`fcos prepare`: write the data of the study as COCO JSON with a manifest."""

from pathlib import Path

from fcos.config.data import DataConfig, GroundTruthData, ShapesData
from fcos.config.section import parse_section, read_params
from fcos.config.study import Name
from fcos.data.shards import SETTING, Store, has_secret
from fcos.errors import UserError
from fcos.files import read_note, whole_dir
from fcos.progress import say
from fcos.records import Manifest
from fcos.study.data import write_data
from fcos.study.ground_truth import read_ground_truth, write_truth
from fcos.study.layout import Layout
from fcos.study.places import fetch, find_places, link_places, name_of_place
from fcos.visible import without_password


def prepare(shards: str | None = None) -> Manifest:
    """Write data/STUDY/ completely or not at all; return the manifest.

    Args:
        shards: in place of `data.shards`.
    """
    params = read_params()
    config: DataConfig = parse_section(params, "data", DataConfig)  # type: ignore[arg-type]
    layout = Layout(parse_section(params, "study", Name))
    url = _shards(config, shards)
    if url is not None:
        Store(url, SETTING if shards is None else "--shards").check()  # rather than after all images were checked
    fetch(config)

    if url is None and (where := _shards_before(layout)):
        say(f"images are now read from files instead of {where}, because data.shards is not set")

    def name_of(image_dir: Path) -> str:
        return name_of_place(image_dir, find_places(config), layout)

    with whole_dir(layout.data) as scratch:
        if isinstance(config, GroundTruthData):
            manifest = write_truth(config, *read_ground_truth(config), scratch, name_of=name_of)
        else:
            manifest = write_data(config, scratch, name_of=name_of, shards=url)
        link_places(config, layout)
    return manifest


def _shards_before(layout: Layout) -> str | None:
    """Return the URL of the shards of the data that are about to be replaced."""
    splits = read_note(layout.data / "manifest.json").get("splits")
    train = splits.get("train") if isinstance(splits, dict) else None
    shards = train.get("shards") if isinstance(train, dict) else None
    return str(shards.get("url")) if isinstance(shards, dict) else None


def _shards(config: DataConfig, given: str | None) -> str | None:
    """Return the URL for the images, if they are to be written to an object store.

    Raises:
        UserError: it holds a password, or there are no files to write.
    """
    if isinstance(config, ShapesData | GroundTruthData):
        if given is not None:
            problem = "has no effect: only images that a study reads from files are written to shards"
            raise UserError("--shards", problem, found=f"data.source: {config.source}", hint="omit it")
        return None
    url = config.shards if given is None else given
    if url is not None and has_secret(url):
        raise UserError(
            SETTING if given is None else "--shards",
            "has a password or a token in its address, which would be written into manifest.json",
            found=without_password(url.partition("?")[0]),
            hint="remove it; stores read secrets from the environment, S3 from AWS_ACCESS_KEY_ID, for example",
        )
    return url
