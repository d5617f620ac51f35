"""`tta`: test-time augmentation, one view per shorter side."""

from typing import Literal

from fcos.config.section import Section
from fcos.config.study import Name
from fcos.config.train import Sizes


class TtaConfig(Section):
    """`tta`: the sizes at which an image is shown to the network, and for which runs."""

    sizes: Sizes = [288, 320, 352, 384, 416, 448, 480]
    # The split on which the number of views is chosen; with null, all sizes are used.
    choose_on: Literal["validation"] | None = None
    runs: list[Name] = []

    @property
    def views(self) -> dict[str, int]:
        """The length of the shorter side in pixels by name of view."""
        return {f"s{size}": size for size in self.sizes}
