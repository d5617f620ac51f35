"""The first view of a study in MLflow's UI: columns, order and charts, kept as the UI's share button keeps a view.

The button writes a view into a tag of the experiment and opens it by `viewStateShareKey=KEY` in the address (seen in
MLflow 3.17). A store without the tag, or a UI that does not know it, shows its own first view.
"""

import base64
import json
import zlib
from typing import Any

KEY = "study"
TAG = f"mlflow.sharedViewState.{KEY}"
_SECTION = "fcos-study"
_METRICS = ("AP", "AP_low", "AP_high", "AP50", "ms_per_image")
_PARAMS = ("backbone", "epochs", "num_convs", "seed")


def view_addresses(experiment_id: str) -> tuple[str, str]:
    """Return the addresses of the view as a table and as charts, relative to the UI's."""
    table = f"#/experiments/{experiment_id}/runs?viewStateShareKey={KEY}"
    return table, f"{table}&compareRunsMode=CHART"


def packed_view() -> str:
    """Return the view as the UI packs it into the tag, which holds at most 5,000 characters."""
    text = json.dumps(first_view(), separators=(",", ":"))
    return "deflate;" + base64.b64encode(zlib.compress(text.encode(), level=9)).decode()


def first_view() -> dict[str, Any]:
    """Return the state of the UI: trainings alone, best first; its names are those of the UI's code."""
    columns = [*(f"metrics.`{name}`" for name in _METRICS), *(f"params.`{name}`" for name in _PARAMS)]
    charts = [
        *(_scatter(f"AP by {name}", name, "PARAM") for name in ("backbone", "epochs", "num_convs")),
        _scatter("AP against time of an image (ms)", "ms_per_image", "METRIC"),
        _curves("Loss", "loss"),
        _curves("AP on validation images", "validation_AP"),
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


def _scatter(title: str, x: str, kind: str) -> dict[str, Any]:
    """AP against a parameter or a metric."""
    return _chart("SCATTER", title, xaxis={"key": x, "type": kind}, yaxis={"key": "AP", "type": "METRIC"})


def _curves(title: str, metric: str) -> dict[str, Any]:
    lines = {"lineSmoothness": 0, "xAxisScaleType": "linear", "scaleType": "linear", "range": {}, "xAxisKey": "step"}
    return _chart("LINE", title, metricKey=metric, selectedMetricKeys=[metric], **lines)
