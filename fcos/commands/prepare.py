"""`fcos prepare`: write the data of the study as COCO JSON with a manifest."""

from pathlib import Path

from fcos.config.data import DataConfig, GroundTruthData
from fcos.config.section import parse_section, read_params
from fcos.config.study import Name
from fcos.files import whole_dir
from fcos.records import Manifest
from fcos.study.data import write_data
from fcos.study.ground_truth import read_ground_truth, write_truth
from fcos.study.layout import Layout
from fcos.study.places import fetch, find_places, link_places, name_of_place


def prepare() -> Manifest:
    """Write data/STUDY/ completely or not at all; return the manifest."""
    params = read_params()
    config: DataConfig = parse_section(params, "data", DataConfig)  # type: ignore[arg-type]
    layout = Layout(parse_section(params, "study", Name))
    fetch(config)

    def name_of(image_dir: Path) -> str:
        return name_of_place(image_dir, find_places(config), layout)

    with whole_dir(layout.data) as scratch:
        if isinstance(config, GroundTruthData):
            manifest = write_truth(config, *read_ground_truth(config), scratch, name_of=name_of)
        else:
            manifest = write_data(config, scratch, name_of=name_of)
        link_places(config, layout)
    return manifest
