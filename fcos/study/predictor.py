"""The predictor of a run, from the settings in params.yaml."""

import torch
from torch import nn

from fcos.config.runs import Run
from fcos.config.test import TestConfig
from fcos.evaluation.predictor import Predictor
from fcos.model.graphs import make_graphs
from fcos.study.build import build_grid


def build_predictor(
    model: nn.Module, run: Run, test: TestConfig, device: torch.device, dtype: torch.dtype, *, graphs: bool
) -> Predictor:
    """Return the predictor of a network of `run` with the settings `test`; `graphs` permits CUDA graphs of it."""
    return Predictor(
        model=model,
        grid=build_grid(run.model),
        device=device,
        dtype=dtype,
        score_threshold=test.score_threshold,
        max_candidates=test.max_candidates,
        graphs=make_graphs(model, device, dtype, wanted=graphs),
    )
