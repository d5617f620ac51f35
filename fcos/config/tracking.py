"""`tracking`: what is logged to MLflow in addition to parameters, curves and metrics."""

from typing import Literal

from fcos.config.section import Section


class TrackingConfig(Section):
    """The checkpoints to log; `best` logs that of the run with the highest AP. MLFLOW_TRACKING_URI names the store."""

    checkpoints: Literal["all", "best", "none"] = "all"
