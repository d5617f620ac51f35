"""`tracking`: what goes to MLflow besides parameters, curves and metrics."""

from typing import Literal

from fcos.config.section import Section


class TrackingConfig(Section):
    """`best`: only the run of highest AP has its checkpoint in MLflow; the store is MLFLOW_TRACKING_URI."""

    checkpoints: Literal["all", "best", "none"] = "all"
