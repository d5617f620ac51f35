"""The first view of a study in MLflow's UI: columns, order and charts, kept as the UI's share button keeps a view.

The button writes a view into a tag of the experiment and opens it by `viewStateShareKey=KEY` in the address (seen in
MLflow 3.17). A store without the tag, or a UI that does not know it, shows its own first view.
"""

import base64
import json
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient

KEY = "study"
TAG = f"mlflow.sharedViewState.{KEY}"
_SECTION = "fcos-study"
_METRICS = ("AP", "AP_low", "AP_high", "AP50", "ms_per_image")
_PARAMS = ("backbone", "epochs", "num_convs", "seed")


def view_addresses(experiment_id: str) -> tuple[str, str]:
    """Return the addresses of the view as a table and as charts, relative to the UI's."""
    table = f"#/experiments/{experiment_id}/runs?viewStateShareKey={KEY}"
    return table, f"{table}&compareRunsMode=CHART"


def keep_view(client: "MlflowClient", experiment_id: str) -> None:
    """Write the view into the experiment, unless it is there."""
    value = _packed(first_view())
    if client.get_experiment(experiment_id).tags.get(TAG) != value:
        client.set_experiment_tag(experiment_id, TAG, value)


def _packed(view: Mapping[str, Any]) -> str:
    """Return JSON as the UI packs it, since a tag holds at most 5,000 characters."""
    text = json.dumps(view, separators=(",", ":"))
    return "deflate;" + base64.b64encode(zlib.compress(text.encode(), level=9)).decode()


def first_view() -> dict[str, Any]:
    """Return the state of the UI: trainings alone, best first; its names are those of the UI's code."""
    columns = [*(f"metrics.`{name}`" for name in _METRICS), *(f"params.`{name}`" for name in _PARAMS)]
    charts = [
        *(_scatter(f"AP by {name}", (name, "PARAM"), ("AP", "METRIC")) for name in ("backbone", "epochs", "num_convs")),
        _scatter("AP against time of an image (ms)", ("ms_per_image", "METRIC"), ("AP", "METRIC")),
        _curves("Loss", ["loss"]),
        _curves("AP on validation images", ["validation_AP"]),
    ]
    return {
        "searchFilter": "tags.kind = 'training'",
        "orderByKey": "metrics.`AP`",
        "orderByAsc": False,
        "selectedColumns": columns,
        "columnOrder": columns,
        "runsHiddenMode": "SHOW_ALL",
        "compareRunCharts": charts,
        "compareRunSections": [
            {"uuid": _SECTION, "name": "Study", "display": True, "isReordered": True, "isGenerated": False},
            # The UI's own section of all other metrics, folded.
            {"uuid": "others", "name": "Model metrics", "display": False, "isReordered": False, "isGenerated": True},
        ],
        "isAccordionReordered": True,
    }


def _chart(kind: str, title: str, **more: Any) -> dict[str, Any]:
    name = title.lower().replace(" ", "-")
    about = {"displayName": title, "metricSectionId": _SECTION, "deleted": False, "isGenerated": False}
    return {"uuid": f"{_SECTION}-{name}", "type": kind, "runsCountToCompare": 100, **about, **more}


def _scatter(title: str, x: tuple[str, str], y: tuple[str, str]) -> dict[str, Any]:
    axes = {name: {"key": key, "type": kind} for name, (key, kind) in (("xaxis", x), ("yaxis", y))}
    return _chart("SCATTER", title, **axes)


def _curves(title: str, metrics: list[str]) -> dict[str, Any]:
    lines = {"lineSmoothness": 0, "xAxisScaleType": "linear", "scaleType": "linear", "range": {}, "xAxisKey": "step"}
    return _chart("LINE", title, metricKey=metrics[0], selectedMetricKeys=metrics, **lines)
