"""Validation while a training runs: what it finds, the best weights so far, and when to end."""

import time
from collections.abc import Mapping
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from fcos.config.train import TrainConfig
from fcos.records import Numbers, ValidationSummary

UNDEFINED = -1.0  # AP where COCO defines none: below all others


class Validator(Protocol):
    """Scores a network; handed in from outside, so that training depends on no code that scores."""

    @property
    def key(self) -> str:
        """Digest of the images, the settings and the code that decide its numbers."""
        ...

    @property
    def num_images(self) -> Mapping[str, int]:
        """How many images of `validation` and of `training` are looked at."""
        ...

    def __call__(self, model: nn.Module, device: torch.device, split: Literal["validation", "training"]) -> Numbers:
        """The COCO numbers of `model` as fractions; it is in evaluation mode afterwards."""
        ...


class Validation:
    """The validations of one training; without a `validator` none is ever due."""

    def __init__(self, validator: Validator | None, config: TrainConfig, *, num_epochs: int) -> None:
        self._validator, self._config, self._num_epochs = validator, config, num_epochs
        self.best_ap, self.best_epoch, self.seconds = UNDEFINED, 0, 0.0
        self._last_ap, self._last_epoch = UNDEFINED, 0
        self._best_model: dict[str, Tensor] | None = None

    def is_due(self, epochs: int) -> bool:
        """Whether to validate after so many epochs: each `validate_every`, and at the end."""
        every = self._config.validate_every
        return self._validator is not None and every is not None and (epochs % every == 0 or epochs == self._num_epochs)

    def __call__(self, model: nn.Module, device: torch.device, epochs: int) -> dict[str, float]:
        """Score `model` after so many epochs: the columns of the history; those without a number are missing."""
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
        """Whether the best number is `patience` epochs old."""
        patience = self._config.patience
        return patience is not None and epochs - self.best_epoch >= patience

    @property
    def note(self) -> str:
        """For the progress line."""
        if not self.best_epoch:
            return ""
        best = f"best {100 * self.best_ap:.1f} after epoch {self.best_epoch}"
        return f", validation AP {100 * self._last_ap:.1f} ({best})"

    def keep(self, model: nn.Module) -> None:
        """Give `model` the weights that are to be kept."""
        if self._best_model is not None:
            model.load_state_dict(self._best_model)

    def summary(self, model: nn.Module, device: torch.device) -> ValidationSummary | None:
        """What train.json says of it; `model` has the weights that are kept, and is scored on training images too."""
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
        """What a resumed training needs to go on as without interruption."""
        numbers = (self.best_ap, self.best_epoch, self._last_ap, self._last_epoch, self.seconds)
        return {"numbers": list(numbers), "model": self._best_model}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.best_ap, self.best_epoch, self._last_ap, self._last_epoch, self.seconds = state["numbers"]
        self._best_model = state["model"]

    def _score(self, model: nn.Module, device: torch.device, split: Literal["validation", "training"]) -> Numbers:
        assert self._validator is not None
        started = time.perf_counter()
        numbers = self._validator(model, device, split)
        model.train()
        self.seconds += time.perf_counter() - started
        return numbers


def _defined(ap: float) -> float | None:
    return None if ap == UNDEFINED else ap
