"""Validation during training: its metrics, the best weights so far and early stopping."""

import time
from collections.abc import Mapping
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from fcos.config.train import TrainConfig
from fcos.records import Numbers, ValidationSummary

UNDEFINED = -1.0  # stands for an undefined AP; lower than every defined one
Part = Literal["validation", "training"]  # which images are scored


class Validator(Protocol):
    """Scores a network; it is passed in, so that the training code does not depend on the scoring code."""

    @property
    def key(self) -> str:
        """Digest of the images, settings and code that determine its metrics."""
        ...

    @property
    def num_images(self) -> Mapping[str, int]:
        """Number of images that are scored, by `validation` and `training`."""
        ...

    def __call__(self, model: nn.Module, device: torch.device, split: Part) -> Numbers:
        """Return the COCO metrics of `model` as fractions; `model` is in evaluation mode afterwards."""
        ...


class Validation:
    """The validations of one training; without a `validator`, no validation is ever due."""

    def __init__(self, validator: Validator | None, config: TrainConfig, *, num_epochs: int) -> None:
        self._validator, self._config, self._num_epochs = validator, config, num_epochs
        self.best_ap, self.best_epoch, self.seconds = UNDEFINED, 0, 0.0
        self._last_ap, self._last_epoch = UNDEFINED, 0
        self._best_model: dict[str, Tensor] | None = None

    def is_due(self, epochs: int) -> bool:
        """Whether to validate after this number of epochs: every `validate_every` epochs and at the end."""
        every = self._config.validate_every
        return self._validator is not None and every is not None and (epochs % every == 0 or epochs == self._num_epochs)

    def __call__(self, model: nn.Module, device: torch.device, epochs: int) -> dict[str, float]:
        """Score `model` after this number of epochs and return the columns of the history that are defined."""
        numbers = self._score(model, device, "validation")
        ap = numbers["AP"]
        self._last_ap, self._last_epoch = UNDEFINED if ap is None else ap, epochs
        if self._last_ap > self.best_ap or not self.best_epoch:
            self.best_ap, self.best_epoch = self._last_ap, epochs
            if self._config.keep == "best":
                self._best_model = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        columns = {f"validation_{name}": numbers[name] for name in ("AP", "AP50")}
        return {name: value for name, value in columns.items() if value is not None}

    def is_enough(self, epochs: int) -> bool:
        """Whether AP has not improved for `patience` epochs."""
        patience = self._config.patience
        return patience is not None and epochs - self.best_epoch >= patience

    @property
    def note(self) -> str:
        """The latest and the best validation AP in percent, for the progress line."""
        if not self.best_epoch:
            return ""
        best = f"best {100 * self.best_ap:.1f} after epoch {self.best_epoch}"
        return f", validation AP {100 * self._last_ap:.1f} ({best})"

    def keep(self, model: nn.Module) -> None:
        """Load the best weights into `model` if they are to be kept."""
        if self._best_model is not None:
            model.load_state_dict(self._best_model)

    def summary(self, model: nn.Module, device: torch.device) -> ValidationSummary | None:
        """Return the summary for train.json; `model`, which has the kept weights, is scored on training images too."""
        if self._validator is None or not self.best_epoch:
            return None
        best = self._config.keep == "best"
        training = self._score(model, device, "training")
        return {
            "every": self._config.validate_every or 0,
            "keep": self._config.keep,
            "patience": self._config.patience,
            "epochs": self._last_epoch,
            "epoch": self.best_epoch if best else self._last_epoch,
            "AP": _defined(self.best_ap if best else self._last_ap),
            "num_images": self._validator.num_images["validation"],
            "best_AP": _defined(self.best_ap),
            "best_epoch": self.best_epoch,
            "training_AP": training["AP"],
            "num_training_images": self._validator.num_images["training"],
            "seconds": round(self.seconds, 3),
        }

    def state(self) -> dict[str, Any]:
        """Return the state that an interrupted training needs to resume."""
        numbers = (self.best_ap, self.best_epoch, self._last_ap, self._last_epoch, self.seconds)
        return {"numbers": list(numbers), "model": self._best_model}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state()` returned."""
        self.best_ap, self.best_epoch, self._last_ap, self._last_epoch, self.seconds = state["numbers"]
        self._best_model = state["model"]

    def _score(self, model: nn.Module, device: torch.device, split: Part) -> Numbers:
        assert self._validator is not None
        started = time.perf_counter()
        numbers = self._validator(model, device, split)
        model.train()
        self.seconds += time.perf_counter() - started
        return numbers


def _defined(ap: float) -> float | None:
    return None if ap == UNDEFINED else ap
