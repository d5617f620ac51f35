"""Descriptions that MLflow shows: for the study its table and how to read it, for each run one line."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fcos.tracking.view import TAG, packed_view, view_addresses
from fcos.visible import markdown, markdown_code

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

NOTE = "mlflow.note.content"  # the tag that the UI shows as the description
_COLUMNS = ("backbone", "epochs", "num_convs", "seed")


def describe_run(evaluation: Mapping[str, Any], train: Mapping[str, Any]) -> str:
    """Return the description of a run: its settings, its results, and where its files are."""
    params = {name: markdown(str(value)) for name, value in train["params"].items()}
    epochs = f"{markdown(str(train['params']['epochs'] or 'no'))} epochs"
    what = f"{params['backbone']}, {epochs}, num_convs {params['num_convs']}, seed {params['seed']}"
    study, name = train["params"]["study"], train["params"]["name"]
    reached = f" {_with_interval(evaluation, 'AP')}, {_with_interval(evaluation, 'AP50')}." if evaluation else ""
    return (
        f"{what}.{reached} Files: {markdown_code(f'runs/{study}/{name}/')}; "
        f"to try it: {markdown_code(f'fcos detect IMAGES --checkpoint {name}')}."
    )


def describe_study(client: "MlflowClient", experiment_id: str, study: str, trainings: Sequence["Run"]) -> None:
    """Update the description and the view of the experiment; `trainings` are the current ones, in order."""
    written = client.get_experiment(experiment_id).tags
    text = _text(study, trainings, *view_addresses(experiment_id))
    for tag, value in ((NOTE, text), (TAG, packed_view())):
        if written.get(tag) != value:
            client.set_experiment_tag(experiment_id, tag, value)


def _text(study: str, trainings: Sequence["Run"], as_table: str, as_charts: str) -> str:
    header = ["run", *_COLUMNS, "AP", "interval", "AP50", "ms/image"]
    rows = [_row(run) for run in trainings]
    table = "\n".join(f"| {' | '.join(row)} |" for row in [header, ["---"] * len(header), *rows])
    return f"""**[Best first, with intervals]({as_table}) · [charts by backbone, epochs and num_convs]({as_charts})**

The trainings of the study `{study}`, copied from `runs/{study}/`. The report with its paired tests is
`reports/{study}/index.html`; `fcos sync-mlflow` refills this store from the files.

{table}

**How to read it**

- AP is COCO's, as a fraction here and in percent in the table; `AP_low` and `AP_high` are the ends of its interval.
- One run is one training: a difference between two runs is about these two networks, on these images, and says nothing
  certain about their settings. The filter `tags.kind = "training"` leaves its child runs out. Group by `backbone`,
  `epochs` or `num_convs`: they are parameters.
- Child runs are one step each of test-time augmentation (`tags.kind = "tta"`, parameter `num_views`) and of the NMS
  sweep (`tags.kind = "nms"`, parameter `nms_iou_threshold`): choose them and plot AP against their parameter.
- `tags.kind = "results"`: results of detectors that were not trained here, tag `results_sha256`.
- `tags.superseded = "true"`: trained again since, with other settings, data or code.
- Weights: `mlflow.pyfunc.load_model("models:/{model_name(study)}@best")` has the run of the highest AP."""


def model_name(study: str) -> str:
    """Return the name of the study in the model registry."""
    return f"fcos-{study}"


def _row(run: "Run") -> list[str]:
    params, metrics = run.data.params, run.data.metrics
    return [
        f"[{markdown(run.data.tags['run'])}](#/experiments/{run.info.experiment_id}/runs/{run.info.run_id})",
        *(markdown(params.get(name, "-")) for name in _COLUMNS),
        _percent(metrics.get("AP")),
        f"{_percent(metrics.get('AP_low'))} to {_percent(metrics.get('AP_high'))}",
        _percent(metrics.get("AP50")),
        f"{metrics['ms_per_image']:.1f}" if "ms_per_image" in metrics else "-",
    ]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _with_interval(evaluation: Mapping[str, Any], name: str) -> str:
    interval = evaluation.get("intervals", {}).get(name, {"low": None, "high": None})
    ends = "" if interval["low"] is None else f" [{_percent(interval['low'])}, {_percent(interval['high'])}]"
    return f"{name} {_percent(evaluation['metrics'][name])}{ends}"
