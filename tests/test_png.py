"""PNG files with palettes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcos.reporting.png import save_png


@pytest.mark.parametrize(("colours", "off"), [(1, 0), (256, 0), (300, 60)])
def test_few_colours_are_kept_exactly(colours: int, off: int) -> None:
    pixels = np.random.default_rng(0).integers(256, size=(colours, 3), dtype=np.uint8)
    pixels = np.resize(pixels, (40, 50, 3))
    save_png(Image.fromarray(pixels), Path("image.png"))
    with Image.open("image.png") as image:
        assert image.mode == "P"
        found = np.asarray(image.convert("RGB"))
    assert np.abs(found.astype(int) - pixels).max() <= off
