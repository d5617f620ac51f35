"""Build the objects that a resolved run describes; the objects themselves do not know the config."""

from pathlib import Path

import torch

from fcos.config.model import STRIDES, ModelConfig
from fcos.config.runs import Run
from fcos.errors import UserError
from fcos.model.checkpoint import Identity, load_weights
from fcos.model.detector import FCOS
from fcos.model.locations import LocationGrid


def build_model(run: Run, num_classes: int, *, pretrained: bool | Path) -> FCOS:
    """Return the network of `run`, initialised from its seed; the global random state is unchanged.

    Args:
        pretrained: see Backbone.
    """
    config = run.model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        return FCOS(
            backbone=run.backbone,
            num_classes=num_classes,
            num_convs=run.num_convs,
            pretrained=pretrained,
            frozen_statistics=config.batch_norm == "frozen",
            fpn_channels=config.fpn_channels,
            p6_from_p5=config.p6_from == "p5",
            group_norm_groups=config.group_norm_groups,
            prior_probability=config.prior_probability,
            initial_ltrb=config.initial_ltrb,
            normal_class_tower=config.class_tower_init == "normal",
            zero_init_residual=config.zero_init_residual,
        )


def build_grid(config: ModelConfig) -> LocationGrid:
    """Return the locations that `model` in params.yaml describes."""
    return LocationGrid(
        strides=STRIDES, offset=config.location_offset, step_from_padding=config.location_step == "padded"
    )


def load_model(run: Run, identity: Identity, path: Path) -> FCOS:
    """Return the network of `run` with the weights at `path`."""
    model = build_model(run, len(identity.categories), pretrained=False)
    try:
        model.load_state_dict(load_weights(path))
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise UserError(path, "does not fit the network of the run", found=first, hint="train again") from None
    return model
