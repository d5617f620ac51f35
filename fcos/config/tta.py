"""`tta`: test-time augmentation, one view per shorter side."""

from fcos.config.section import Section
from fcos.config.study import Name
from fcos.config.train import Sizes


class TtaConfig(Section):
    sizes: Sizes = [288, 320, 352, 384, 416, 448, 480]
    runs: list[Name] = []
