"""The script that MLflow copies beside the weights and executes to load the model."""

import base64
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from numpy.typing import NDArray

from fcos.data.images import read_image
from fcos.inference.detector import Detector

COLUMNS = ["image", "category_id", "category", "score", "x", "y", "width", "height"]


class ImagesToBoxes(PythonModel):
    """Model that takes one row per image and returns one row per object, with the number of its image."""

    def load_context(self, context: PythonModelContext) -> None:
        """Called by MLflow before the first prediction."""
        self.detector = Detector.from_weights(Path(context.artifacts["weights"]))

    def predict(  # MLflow passes all three arguments
        self,
        context: PythonModelContext,  # noqa: ARG002
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,  # noqa: ARG002
    ) -> pd.DataFrame:
        """Detect objects in the images of column `image`, given as paths or as base64 of image files."""
        found = self.detector([_image(text, self.detector.bits) for text in model_input["image"]])
        rows = [
            [image, record["category_id"], record["category"], record["score"], *record["bbox"]]
            for image, records in enumerate(found)
            for record in records
        ]
        return pd.DataFrame(rows, columns=COLUMNS)


def _image(text: str, bits: int) -> NDArray[np.uint8]:
    """Read an image from a path, if it is an existing file, or from base64 with or without a `data:` prefix."""
    if os.path.isfile(text):  # noqa: PTH113 (pathlib raises where base64 is longer than a file name may be)
        return read_image(Path(text), bits=bits)
    with tempfile.NamedTemporaryFile() as file:
        file.write(base64.b64decode(text.rpartition(",")[2]))
        file.flush()
        return read_image(Path(file.name), bits=bits)


set_model(ImagesToBoxes())
