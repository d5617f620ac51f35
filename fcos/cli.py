"""The command line: each command validates params.yaml as a whole, calls one module of `fcos.commands`, tells MLflow.

Heavy packages are imported inside the commands, so that `fcos --help` answers at once.
"""

import contextlib
import inspect
import os
import platform
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fcos.errors import UserError
from fcos.interruption import postpone
from fcos.visible import visible

if TYPE_CHECKING:
    from fcos.config.params import Params

# Disable usage reports of MLflow and DVC.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DVC_NO_ANALYTICS", "true")

app = typer.Typer(
    help="Train FCOS object detectors, compare any detectors, and run whole studies, as `make repro` does.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
study_app = typer.Typer(help="Create, select, inspect and run studies.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(study_app, name="study")

VERSIONS = ("torch", "torchvision", "dvc", "mlflow")


def _show_version(value: bool) -> None:
    if value:
        from importlib.metadata import PackageNotFoundError, version

        from fcos.version import own_version

        shown = [f"Python {platform.python_version()}"]
        for package in VERSIONS:
            with contextlib.suppress(PackageNotFoundError):
                shown.append(f"{package} {version(package)}")
        _echo(f"fcos {own_version()} ({', '.join(shown)})")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the versions and exit.")
    ] = False,
) -> None:
    pass


RunName = Annotated[str, typer.Argument(metavar="RUN", help="A name under `runs` in params.yaml.")]
GroundTruth = Annotated[
    Path, typer.Option("--gt", metavar="PATH", help="COCO ground truth, or a folder that `study new` reads.")
]


def _enough(replicates: int) -> int:
    if 0 < replicates < 100:
        raise typer.BadParameter("fewer than 100 are too few: use 100 or more, or 0 for no intervals")
    return replicates


Replicates = Annotated[
    int, typer.Option(min=0, callback=_enough, help="Number of bootstrap samples of the images; 0: no intervals.")
]
MaxDetections = Annotated[
    int, typer.Option(min=1, help="Maximum number of detections that are scored per image and class.")
]
Areas = Annotated[
    str | None,
    typer.Option(metavar="S,L", help="Object sizes in pixels that separate small, medium and large (COCO: 32,96)."),
]
Iou = Annotated[
    str | None, typer.Option(metavar="T", help="IoU thresholds: 0.5, or 0.5,0.75, or 0.5:0.95:0.05 (COCO).")
]
AreaFromBox = Annotated[bool, typer.Option("--area-from-box", help="Use width x height as the area of each object.")]
UnknownImages = Annotated[
    bool, typer.Option("--ignore-unknown-images", help="Ignore detections in images that have no ground truth.")
]
UnknownClasses = Annotated[
    bool, typer.Option("--ignore-unknown-classes", help="Ignore detections of classes that have no ground truth.")
]
Split = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Split of a folder: test, validation or train (default: the first that exists)."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
GroupsBy = Annotated[
    str | None,
    typer.Option(
        "--groups",
        metavar="BY",
        help="Resample images of one group (video, scene) together. BY: a key of the images, a CSV of image,group, N "
        "(first N characters of file names), or a separator such as _ (everything before the last one). "
        "Default: images whose annotated objects coincide are a group, any other is alone, as all are with BY = id.",
    ),
]
Confidence = Annotated[float, typer.Option(min=0.5, max=0.999, help="Confidence level of the intervals and tests.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")]
Nms = Annotated[
    float | None, typer.Option(min=0, max=1, help="NMS IoU threshold (default: test.nms_iou_threshold in params.yaml).")
]


class Views(StrEnum):
    """Views of the test images to predict."""

    test = "test"
    tta = "tta"


class Damaged(StrEnum):
    """Values of `data.damaged` of a new study."""

    error = "error"
    leave_out = "leave-out"


class OutsideBoxes(StrEnum):
    """Values of `data.outside_boxes` of a new study."""

    error = "error"
    clip = "clip"


class EngineName(StrEnum):
    """Where `fcos study run` trains."""

    local = "local"
    slurm = "slurm"
    ray = "ray"


class ExportFormat(StrEnum):
    """File formats that `fcos export` writes."""

    onnx = "onnx"
    torchscript = "torchscript"


MISTAKE, INTERRUPTED = 2, 128 + signal.SIGINT
NOT_RESTORED = 3  # exit code of a stage that DVC was only to restore from its caches
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGALRM")  # Windows has only the first two
AGAIN_S = 0.1  # delay before a lost signal is sent again


class Stopped(KeyboardInterrupt):
    """A signal requested the end; from a plain KeyboardInterrupt CPython may die by signal, without an exit code."""


def main() -> None:
    """Run the command line: exit code 0 done, 2 the user's mistake, 130 interrupted, 1 anything else."""
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True
        if not postpone():
            raise Stopped

    def hear_again(lost: "sys.UnraisableHookArgs") -> None:
        """Send the signal again if Python dropped its exception, as it does in a `__del__` or a callback."""
        if isinstance(lost.exc_value, Stopped) and hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, AGAIN_S)
        else:
            sys.__unraisablehook__(lost)

    numbers = [getattr(signal, name, None) for name in SIGNALS]
    for number in filter(None, numbers):
        if signal.getsignal(number) is not signal.SIG_IGN:  # ignored under nohup
            signal.signal(number, stop)
    sys.unraisablehook = hear_again
    if _is_only_restored():
        sys.exit(NOT_RESTORED)
    _renew_link()
    try:
        app()
        return
    except BaseException as error:
        if isinstance(error, SystemExit) and error.code != INTERRUPTED:
            raise
        # A library may replace the exception of a signal: numpy raises RecursionError while it is imported.
        mistake = None if stopped else _as_mistake(error)
        if mistake is None and not stopped:
            raise
    # The error and its traceback are released here, so that progress bars are closed before the last message.
    last_word = f"error: {mistake}" if mistake else f"\nInterrupted. Finished work is kept; to resume: {_typed()}"
    print(visible(last_word.encode(errors="replace").decode()), file=sys.stderr)
    sys.exit(MISTAKE if mistake else INTERRUPTED)


def _is_only_restored() -> bool:
    """Whether this is a stage that DVC has not found in its caches, and was not to run."""
    if "DVC_STAGE" not in os.environ:
        return False
    from fcos.running.dvc import RESTORE_ONLY

    return RESTORE_ONLY in os.environ


def _renew_link() -> None:
    """In a project made by `fcos init` on another machine, link the package that this one has."""
    if Path(".fcos.json").exists():
        from fcos.running.code_link import refresh_link

        refresh_link()


def _typed() -> str:
    return shlex.join(["fcos", *sys.argv[1:]])


def _as_mistake(error: BaseException) -> UserError | None:
    """Return the error as a message to the user if it is a mistake in the input or a system error, otherwise None."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, ModuleNotFoundError):
        from fcos.extras import missing

        return missing(error, " ".join(["fcos", *sys.argv[1:2]]))
    from fcos.system_errors import explain

    return explain(error)


@study_app.command("list", epilog="Example: fcos study list")
def study_list() -> None:
    """List the ready-made studies in studies/."""
    from fcos.commands.study import list_text

    _echo(list_text(), nl=False)


@study_app.command("show", epilog="Example: fcos study show voc2007")
def study_show(
    name: Annotated[str | None, typer.Argument(help="Name of a study (default: the active one).")] = None,
) -> None:
    """Check a study and show what it consists of."""
    from fcos.commands.study import show_study, study_text

    _echo(study_text(show_study(name)))


@study_app.command(
    "new",
    epilog="Examples: fcos study new mine --from datasets/mine; fcos study new rivals --gt gt.json yolo.json detr.json",
)
def study_new(
    name: Annotated[str, typer.Argument(help="Name of the study: lower-case letters, digits and hyphens.")],
    results: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME=]FILE[,FILE...]", help="With --gt: results of a detector, as `fcos compare` reads them."
        ),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--from", metavar="FOLDER", help="Data in VOC, COCO or YOLO layout, to train on.")
    ] = None,
    gt: Annotated[
        Path | None,
        typer.Option("--gt", metavar="PATH", help="Ground truth, for a study of results that trains nothing."),
    ] = None,
    split: Split = None,
    images: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="With --gt: images for the gallery (default: beside the ground truth)."),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs of each training (default: chosen from the number of images).")
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, help="Trainings of each backbone; two or more show how much is chance.")
    ] = 1,
    damaged: Annotated[
        Damaged, typer.Option(help="Images, annotations and lines that cannot be used: stop, or leave them out.")
    ] = Damaged.error,
    outside_boxes: Annotated[
        OutsideBoxes, typer.Option(help="Boxes that end more than a pixel outside their image: stop, or clip them.")
    ] = OutsideBoxes.error,
) -> None:
    """Create a study for your own data, or for results of detectors: writes studies/NAME.yaml."""
    of_results = {"results": results, "--split": split, "--images": images}
    of_trainings = {"--epochs": epochs, "--seeds": seeds - 1, "--damaged": damaged != Damaged.error}
    of_trainings |= {"--outside-boxes": outside_boxes != OutsideBoxes.error}
    if (folder is None) == (gt is None):
        expected = "--from FOLDER, to train on it, or --gt PATH with files of results, which trains nothing"
        raise UserError("fcos study new", "needs one of two options", found="both" if gt else "none", expected=expected)
    wrong, other = (of_results, "--gt") if folder else (of_trainings, "--from")
    if given := [option for option, value in wrong.items() if value]:
        raise UserError(given[0], f"can only be used with {other}", hint="leave it out")
    if folder:
        from fcos.authoring.new import study_new

        choices = {"damaged": damaged.value, "outside_boxes": outside_boxes.value}
        return _echo(study_new(name, folder, epochs=epochs, seeds=seeds, **choices))
    from fcos.authoring.results import study_of_results

    if not results:
        raise UserError("fcos study new --gt", "no results", expected="[NAME=]FILE of each detector")
    assert gt is not None
    return _echo(study_of_results(name, gt, results, split=split, images=images))


@study_app.command("use", epilog="Example: fcos study use smoke")
def study_use(
    name: Annotated[str, typer.Argument(help="A study in studies/.")],
    force: Annotated[bool, typer.Option("--force", help="Overwrite edits in params.yaml.")] = False,
) -> None:
    """Activate a study: copies it to params.yaml."""
    from fcos.commands.study import use_study

    kept = use_study(name, force=force)
    _echo(f"params.yaml is now study {name}" + (f"; your edits are in {kept}" if kept else ""))


@study_app.command("plan", epilog="Example: fcos study plan --price 2.5")
def study_plan(
    price: Annotated[float | None, typer.Option(min=0, help="Price of a machine for an hour, in any currency.")] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Number of trainings at a time (default: as `fcos study run`).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Estimate the time and money that the active study takes, from measured trainings or a few trial steps."""
    import json

    params = _params()
    from fcos.running.jobs import suitable_jobs
    from fcos.running.plan import plan_json, plan_study, plan_text

    plan = plan_study(params, jobs or suitable_jobs(params.runs.values()))
    _echo(json.dumps(plan_json(plan, price), indent=2) if as_json else plan_text(plan, price))


@study_app.command("run", epilog="Example: fcos study run --jobs 2")
def study_run(
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Trainings in parallel (default: by cores and memory; one per GPU).")
    ] = None,
    engine: Annotated[EngineName, typer.Option(help="Where the trainings run.")] = EngineName.local,
    engine_options: Annotated[
        Path, typer.Option(metavar="FILE", help="Settings of the cluster, such as its shared folder and partition.")
    ] = Path("engine.yaml"),
    detach: Annotated[bool, typer.Option("--detach", help="Submit to a cluster and do not wait.")] = False,
) -> None:
    """Run all outdated stages of the active study, like `dvc repro`, with several trainings in parallel."""
    if engine is EngineName.local:
        if detach:
            raise UserError("--detach", "can only be used with a cluster", hint="add --engine slurm, or use nohup")
        from fcos.running.run import run_study

        return run_study(jobs)
    if jobs is not None:
        raise UserError("--jobs", "cannot be used with a cluster", hint="omit it: the cluster schedules the jobs")
    from fcos.running.engines.choice import make_engine
    from fcos.running.engines.coordinator import run_on_cluster
    from fcos.running.engines.options import read_options

    options = read_options(engine_options)
    if failed := run_on_cluster(make_engine(engine.value, options), options, detach=detach):
        _echo(f"failed: {', '.join(failed)}; see above. The other runs are done; to try again: {_typed()}", err=True)
        raise typer.Exit(1)
    return None


@study_app.command("cancel", epilog="Example: fcos study cancel")
def study_cancel() -> None:
    """Cancel the cluster jobs of the active study; saved states are kept."""
    from fcos.running.engines.jobs_file import submitted
    from fcos.running.engines.protocol import EngineSilent

    found = submitted(_params().study)
    try:
        cancelled = found.cancel() if found else []
    except EngineSilent as error:
        raise UserError("fcos study cancel", "the engine does not answer; nothing was cancelled", found=error) from None
    _echo(f"cancelled: {', '.join(cancelled)}" if cancelled else "no job of this study is waiting or running")


@app.command(epilog="Example: fcos init detectors")
def init(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", show_default="this folder", help="A new or empty folder.")
    ] = Path(),
    upgrade: Annotated[
        bool, typer.Option("--upgrade", help="Bring a project to the installed version; edited files are kept.")
    ] = False,
) -> None:
    """Make a project of your own: a git and DVC folder with studies, which the installed package runs."""
    from fcos.authoring.project import init_project, upgrade_project

    _echo((upgrade_project if upgrade else init_project)(folder))


@app.command(epilog="Example: fcos source --at /data/cells")
def source(
    at: Annotated[
        Path | None,
        typer.Option(
            "--at",
            metavar="FOLDER",
            envvar="FCOS_DATA_ROOT",
            help="Folder of the data on this machine; data.root becomes a link to it.",
        ),
    ] = None,
) -> None:
    """Find or download the data of the study and link them, so that DVC sees every change."""
    params = _params()
    from fcos.commands.source import source
    from fcos.study.source_index import changed_text

    with _at_work(params, "source"):
        changes = source(at)
    if changes:
        _echo(changed_text(changes))


@app.command(epilog="Examples: fcos prepare; fcos prepare --shards s3://BUCKET/pets")
def prepare(
    shards: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Also write the images to an object store, and read them from there until the next prepare.",
        ),
    ] = None,
) -> None:
    """Download or generate the data, check them, and write them as COCO JSON with a manifest."""
    params = _params()
    from fcos.commands.prepare import prepare
    from fcos.commands.source import source
    from fcos.study.findings import manifest_text

    with _at_work(params, "prepare"):
        manifest = prepare(shards)
        if "DVC_STAGE" not in os.environ:
            source()
    _echo(manifest_text(manifest))


@app.command(epilog="Example: fcos train resnet18-e12-c3")
def train(run_name: RunName) -> None:
    """Train one run, or import its checkpoint; an interrupted training resumes."""
    params = _params(run_name)
    from fcos.commands.train import train
    from fcos.distributed import rank_to_be
    from fcos.study.validator import SplitValidator
    from fcos.tracking.live import LiveRun

    if rank_to_be() > 0:  # the first rank records and tracks the training
        train(run_name, None, SplitValidator)
        return
    with _at_work(params, "train", run_name), contextlib.closing(LiveRun(params.study)) as observer:
        train(run_name, observer, SplitValidator)
    _track(params, [run_name])


@app.command("import-checkpoint", epilog="Example: fcos import-checkpoint fcos_resnet50.pth --run resnet50-reference")
def import_checkpoint(
    file: Annotated[Path, typer.Argument(help="A torchvision FCOS state dict, or weights of this project.")],
    run_name: Annotated[str, typer.Option("--run", metavar="RUN", help="A name under `runs` in params.yaml.")],
) -> None:
    """Import the weights of a run from a file."""
    params = _params(run_name)
    from fcos.commands.import_checkpoint import import_checkpoint

    # Weights other than those that the study names are not an output of its stage.
    named = params.runs[run_name].checkpoint
    by_name = named is not None and Path(named).exists() and file.exists() and file.samefile(named)
    with _at_work(params, "train", run_name, recorded=by_name):
        _echo(f"wrote {import_checkpoint(file, run_name)}")
    _track(params, [run_name])


@app.command(epilog="Example: fcos predict resnet18-e12-c3 --views tta")
def predict(
    run_name: RunName,
    views: Annotated[
        Views, typer.Option(help="The test view only, or all views of test-time augmentation.")
    ] = Views.test,
) -> None:
    """Run the network on the test and validation images and store its candidates (boxes before NMS)."""
    params = _params(run_name)
    from fcos.commands.predict import predict
    from fcos.distributed import rank_to_be

    if rank_to_be() > 0:
        predict(run_name, views.value)
        return
    first_of_two = views is Views.tta
    with _at_work(params, "tta" if first_of_two else "predict", run_name, ends=not first_of_two):
        predict(run_name, views.value)


@app.command(epilog="Example: fcos evaluate resnet18-e12-c3")
def evaluate(run_name: RunName) -> None:
    """Compute the twelve COCO metrics of a run from its stored candidates."""
    params = _params(run_name)
    from fcos.commands.evaluate import evaluate
    from fcos.reporting.intervals import metrics_line

    with _at_work(params, "evaluate", run_name):
        found = evaluate(run_name)
    _echo(metrics_line(found["metrics"], found["intervals"]))
    _track(params, [run_name])


@app.command(epilog="Example: fcos results yolo")
def results(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name under `results` in params.yaml.")],
) -> None:
    """Score the results of a detector that was not trained here on the test split, for the report."""
    params = _params()
    from fcos.commands.results import find_results, results
    from fcos.commands.source import source
    from fcos.reporting.intervals import metrics_line

    config = find_results(params.results, name)
    with _at_work(params, "results", name):
        if "DVC_STAGE" not in os.environ:
            source()
        found = results(name)
    for shown, of_file in zip(config.names(name), found, strict=True):
        for text in of_file.get("findings", []):
            _echo(f"{shown}: {text}", err=True)
        _echo(f"{shown}: {metrics_line(of_file['metrics'], of_file['intervals'])}")
    _track(params, [])


@app.command(epilog="Example: fcos predict RUN --views tta && fcos tta RUN")
def tta(run_name: RunName) -> None:
    """Score test-time augmentation for each number of views, from stored candidates."""
    params = _params(run_name)
    from fcos.commands.tta import tta
    from fcos.reporting.steps import tta_text

    with _at_work(params, "tta", run_name):
        found = tta(run_name)
    _echo(tta_text(found))
    _track(params, [run_name])


@app.command("nms-sweep", epilog="Example: fcos nms-sweep resnet18-e12-c3")
def nms_sweep(run_name: RunName) -> None:
    """Score each NMS threshold of params.yaml, from stored candidates."""
    params = _params(run_name)
    from fcos.commands.nms_sweep import nms_sweep
    from fcos.reporting.steps import sweep_text

    with _at_work(params, "nms_sweep", run_name):
        found = nms_sweep(run_name)
    _echo(sweep_text(found))
    _track(params, [run_name])


@app.command("evaluate-tta", hidden=True)
def _evaluate_tta(run_name: RunName) -> None:
    """The former name of `fcos tta`."""
    _former_name("evaluate-tta", "tta")
    tta(run_name)


@app.command("sweep-nms", hidden=True)
def _sweep_nms(run_name: RunName) -> None:
    """The former name of `fcos nms-sweep`."""
    _former_name("sweep-nms", "nms-sweep")
    nms_sweep(run_name)


def _former_name(former: str, name: str) -> None:
    _echo(f"hint: `fcos {former}` is now `fcos {name}`; the next version removes the old name", err=True)


@app.command(epilog="Example: fcos report")
def report() -> None:
    """Build the report of the study with all tables and figures: reports/STUDY/index.html."""
    params = _params()
    from fcos.commands.report import report
    from fcos.running.by_hand import drop_recorded

    with _at_work(params, "report"):
        _echo(f"wrote {report()}")
    drop_recorded(params.study)
    _track(params, list(params.runs))


@app.command(epilog="Example: fcos detect 'photos/**/*.jpg' --checkpoint resnet18-e12-c3 --out detections --score 0.5")
def detect(
    paths: Annotated[list[Path], typer.Argument(help="Images, folders of images or video frames, or quoted patterns.")],
    checkpoint: Annotated[str, typer.Option(metavar="RUN_OR_FILE", help="A run of the study, or a weights file.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Output folder of the images with boxes.")] = Path(
        "detections"
    ),
    score: Annotated[
        float, typer.Option(min=0, max=1, help="Lowest score of a detection that is drawn and written.")
    ] = 0.3,
    nms: Nms = None,
    images: Annotated[
        bool, typer.Option("--images/--no-images", help="Draw the boxes, or write detections.json only.")
    ] = True,
    pictures: Annotated[bool | None, typer.Option("--pictures/--no-pictures", hidden=True)] = None,
) -> None:
    """Detect objects in your own images: draws the boxes and writes detections.json."""
    from fcos.commands.detect import detect

    if pictures is not None:
        images = pictures
        _echo("hint: --pictures is now --images; the next version removes the old name", err=True)
    found = detect(paths, checkpoint, out, score=score, nms=nms, images=images)
    _echo(f"{len(found)} objects with a score of {score:g} or more; see {out}/")


@app.command(epilog="Example: fcos export resnet18-e12-c3 --format onnx --out detector.onnx")
def export(
    checkpoint: Annotated[str, typer.Argument(metavar="RUN_OR_FILE", help="A run of the study, or a weights file.")],
    format: Annotated[ExportFormat, typer.Option(help="File format.")] = ExportFormat.onnx,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Output file (default: RUN.onnx or RUN.pt).")] = None,
    score: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Score threshold of the exported network (default: as in params.yaml)."),
    ] = None,
    nms: Nms = None,
) -> None:
    """Export the network, from pixels to boxes, as ONNX or TorchScript and check that it finds the same boxes."""
    from fcos.commands.export import ExportDiffers, export

    try:
        written, check = export(checkpoint, format.value, out, score=score, nms=nms)
    except ExportDiffers as error:
        _echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    _echo(f"checked {check}\nwrote {written}")


@app.command(epilog="Example: fcos demo --port 8000")
def demo(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0: any free port.")] = 8000,
) -> None:
    """Try the trained runs on your own images in a local web page."""
    params = _params()
    from fcos.inference.demo import Demo
    from fcos.inference.demo_server import make_server

    study = Demo(params.study, params.runs, params.test)
    with make_server(study, port) as server, contextlib.suppress(KeyboardInterrupt):
        _echo(f"http://127.0.0.1:{server.server_port}  (Ctrl-C ends it)")
        server.serve_forever()


@app.command(epilog="Example: fcos ui --port 5000")
def ui(port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 5000) -> None:
    """Serve MLflow's pages of this project, and print where the active study is."""
    params = _params()
    from fcos.tracking.store import StoreUnavailable
    from fcos.tracking.ui import is_own, pages_of, serve

    try:
        _echo(pages_of(params.study, port))
    except StoreUnavailable as error:
        raise UserError("MLflow", str(error), hint=error.hint) from None
    if is_own():
        serve(port)


@app.command(epilog="Example: fcos score --gt val.json --detections detections.json --out numbers.json")
def score(
    gt: GroundTruth,
    detections: Annotated[Path, typer.Option(metavar="PATH", help="Results of any detector: a file or a folder.")],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="JSON file for all metrics.")] = None,
    per_class: Annotated[
        Path | None, typer.Option(metavar="FILE", help="CSV file for the metrics of each class.")
    ] = None,
    replicates: Replicates = 1000,
    confidence: Confidence = 0.95,
    seed: Seed = 0,
    max_detections: MaxDetections = 100,
    areas: Areas = None,
    iou: Iou = None,
    area_from_box: AreaFromBox = False,
    ignore_unknown_images: UnknownImages = False,
    ignore_unknown_classes: UnknownClasses = False,
    split: Split = None,
    groups: GroupsBy = None,
) -> None:
    """Compute COCO metrics of any detector's results, overall and per class, with confidence intervals."""
    from fcos.commands.score import score, score_text
    from fcos.comparing.inputs import Choices

    choices = Choices(
        max_detections=max_detections,
        areas=areas,
        iou=iou,
        area_from_box=area_from_box,
        ignore_unknown_images=ignore_unknown_images,
        ignore_unknown_classes=ignore_unknown_classes,
        split=split,
        groups=groups,
    )
    found = score(
        gt, detections, out=out, replicates=replicates, confidence=confidence, seed=seed, per_class=per_class,
        choices=choices,
    )  # fmt: skip
    written = ", ".join(str(path) for path in (out, per_class) if path)
    _echo(score_text(found) + (f"\n\nwrote {written}" if written else ""))


@app.command(epilog="Example: fcos compare --gt val.json ours=s0.json,s1.json,s2.json theirs=detections.json")
def compare(
    results: Annotated[
        list[str],
        typer.Argument(metavar="RESULTS", help="Results, as [NAME=]FILE; join the files of several seeds with commas."),
    ],
    gt: GroundTruth,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Output folder of the tables and the chart.")] = Path(
        "comparison"
    ),
    replicates: Replicates = 1000,
    confidence: Confidence = 0.95,
    seed: Seed = 0,
    max_detections: MaxDetections = 100,
    areas: Areas = None,
    iou: Iou = None,
    area_from_box: AreaFromBox = False,
    ignore_unknown_images: UnknownImages = False,
    ignore_unknown_classes: UnknownClasses = False,
    split: Split = None,
    groups: GroupsBy = None,
    power: Annotated[
        bool, typer.Option("--power", help="Estimate how many images and seeds would show a difference of 1 AP.")
    ] = False,
    baseline: Annotated[
        str | None, typer.Option(metavar="NAME", help="Compare each other row with this one only, not all pairs.")
    ] = None,
    fail_if_worse: Annotated[
        float | None,
        typer.Option(
            metavar="MARGIN",
            min=0,
            help="Exit with 1 unless each row is shown to be at most MARGIN points of AP below the baseline (default: "
            "the first row), by the lower bound of the interval.",
        ),
    ] = None,
    fail_unless_better: Annotated[
        bool, typer.Option("--fail-unless-better", help="Exit with 1 unless each row is shown to exceed the baseline.")
    ] = False,
    html: Annotated[
        bool, typer.Option("--html", help="Write comparison.html too: classes, errors, and images with their boxes.")
    ] = False,
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the images for --html (default: beside --gt).")
    ] = None,
    at_score: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SCORE",
            help="Also precision, recall and F1 with this score threshold: a number, `best` (highest F1 on these "
            "images), or NAME=NUMBER for one row; may be repeated.",
        ),
    ] = None,
    slices: Annotated[
        str | None,
        typer.Option(
            metavar="BY",
            help="Also AP and differences of parts of the images, divided as --groups divides them.",
        ),
    ] = None,
) -> None:
    """Compare detectors on the same images, with paired differences, intervals and tests."""
    from fcos.commands.compare import compare
    from fcos.comparing.inputs import Choices
    from fcos.reporting.comparison import comparison_text
    from fcos.scoring.comparison import Gate

    choices = Choices(
        max_detections=max_detections,
        areas=areas,
        iou=iou,
        area_from_box=area_from_box,
        ignore_unknown_images=ignore_unknown_images,
        ignore_unknown_classes=ignore_unknown_classes,
        split=split,
        groups=groups,
    )
    gate = None
    if fail_if_worse is not None or fail_unless_better:
        gate = Gate(margin=None if fail_if_worse is None else fail_if_worse / 100, better=fail_unless_better)
    found = compare(
        results, gt, out=out, replicates=replicates, confidence=confidence, seed=seed, choices=choices, power=power,
        baseline=baseline, gate=gate, html=html, images=images, at_score=at_score or (), slices=slices,
    )  # fmt: skip
    page = f"; the page is {out}/comparison.html" if html else ""
    tables = "classes" if slices is None else "classes and slices"
    _echo(f"{comparison_text(found)}\n\nwrote {out}/comparison.json, .csv, .md and .svg, and {tables} as CSV{page}")
    if gate is not None and not found["gate"]["passed"]:
        raise typer.Exit(1)


@app.command(epilog="Examples: fcos labels resnet18-e12-c3   fcos labels --gt val.json one.json other.json")
def labels(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUNS", help="Runs of the active study; with --gt: results files.")
    ],
    gt: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="COCO ground truth or a folder (default: the study's test split)."),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Output folder of the page and the files.")] = Path("labels"),
    top: Annotated[
        int, typer.Option(min=1, help="Number of suspects in the page and for labelling tools, of each kind in turn.")
    ] = 100,
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the images (default: beside --gt, or the study's).")
    ] = None,
    ignore_unknown_images: UnknownImages = False,
    ignore_unknown_classes: UnknownClasses = False,
    split: Split = None,
) -> None:
    """Rank labels that detectors contradict: missing objects, wrong classes and boxes, objects that nobody finds."""
    from fcos.commands.labels import labels
    from fcos.comparing.inputs import Choices

    choices = Choices(
        ignore_unknown_images=ignore_unknown_images, ignore_unknown_classes=ignore_unknown_classes, split=split
    )
    found = labels(runs, gt, out=out, top=top, images=images, choices=choices)
    counts = ", ".join(f"{count} {kind}" for kind, count in found["counts"]["suspects"].items())
    shown = f"the {found['shown']} most suspicious, of each kind in turn, in {out}/labels.html and labels-coco.json"
    without = "" if found["has_images"] else "; without images: give their folder, --images DIR"
    notes = "".join(f"note: {finding['text']}\n" for finding in found["diagnosis"])
    _echo(f"{notes}suspects: {counts}; {shown}, all in labels.csv and labels.json{without}")


@app.command(epilog="Example: fcos status --watch")
def status(
    watch: Annotated[bool, typer.Option("--watch", help="Refresh until Ctrl-C.")] = False,
    as_json: AsJson = False,
    quick: Annotated[bool, typer.Option("--quick", help="Skip the check by DVC, which takes a few seconds.")] = False,
) -> None:
    """Show which stages are done, running or pending, and the estimated time left."""
    import json

    from fcos.running.status import StatusReader, status_json, status_text
    from fcos.running.status import watch as keep_watching

    if watch and as_json:
        raise UserError("--watch", "cannot be combined with --json", hint="leave one of them out")
    read_status = StatusReader(quick=quick)
    if watch:
        with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C ends --watch
            keep_watching(read_status, typer.echo, terminal=sys.stdout.isatty())
    else:
        found = read_status()
        _echo(json.dumps(status_json(found), indent=2) if as_json else status_text(found))


@app.command("sync-mlflow", epilog="Example: MLFLOW_TRACKING_URI=http://127.0.0.1:5000 fcos sync-mlflow")
def sync_mlflow() -> None:
    """Upload the results of all runs to MLflow."""
    params = _params()
    from fcos.tracking.store import StoreUnavailable

    try:
        _echo(f"{_sync(params, list(params.runs))} runs are up to date in MLflow")
    except StoreUnavailable as error:
        raise UserError("MLFLOW_TRACKING_URI", "the store cannot be used", found=error, hint=error.hint) from None


@app.command(epilog="Example: fcos doctor --verify")
def doctor(
    verify: Annotated[
        bool, typer.Option("--verify", help="Also hash all outputs and DVC's cache, to find damaged files.")
    ] = False,
) -> None:
    """Check the installation, device, data and batch sizes; exits with 1 if a check fails."""
    from fcos.commands.doctor import Finding, doctor, findings_text, verify_files
    from fcos.tracking.store import StoreUnavailable, connect, shown_uri

    findings = doctor()
    try:
        if Path("params.yaml").exists() or Path("dvc.yaml").exists():  # elsewhere it would leave an mlflow.db behind
            connect(renew=False)
            findings.append(Finding("tracking", shown_uri()))
    except StoreUnavailable as error:
        what = f"{error}; {error.hint}; to log the runs later: `fcos sync-mlflow`"
        findings.append(Finding("tracking", "not reachable", what))
    findings += verify_files() if verify else []
    _echo(findings_text(findings))
    raise typer.Exit(1 if any(finding.problem for finding in findings) else 0)


# Show the whole sentence in the list of commands, which click would cut at 45 characters.
for _command in [*app.registered_commands, *study_app.registered_commands]:
    _command.short_help = inspect.getdoc(_command.callback)


def _echo(text: object, *, err: bool = False, nl: bool = True) -> None:
    typer.echo(visible(str(text)), err=err, nl=nl)


def _params(run_name: str | None = None) -> "Params":
    """Return the checked params.yaml; raises UserError for an unknown `run_name` before heavy imports."""
    from fcos.config import params
    from fcos.config.runs import find_run

    read = params.read()
    if run_name is not None:
        find_run(read.runs, run_name)
    return read


def _track(params: "Params", runs: Sequence[str]) -> None:
    """Log finished work to MLflow; an unreachable store is only reported, since all results are on disk."""
    if os.environ.get("DVC_STAGE", "report") != "report":
        return  # takes seconds per stage; the report stage, the last of every `dvc repro`, logs all runs

    from fcos.tracking.store import StoreUnavailable

    try:
        _sync(params, runs)
    except StoreUnavailable as error:
        _echo(f"MLflow was not updated ({error}); to update it later: fcos sync-mlflow", err=True)


def _sync(params: "Params", runs: Sequence[str]) -> int:
    from fcos.config.results import files_of
    from fcos.study.layout import Layout
    from fcos.tracking.sync import sync

    layout = Layout(params.study)

    def figures(run_name: str) -> list[Path]:
        return sorted((layout.report / "figures" / "runs" / run_name).glob("*.png"))

    checkpoints = params.tracking.checkpoints
    given = {file.name: layout.runs / file.place for file in files_of(params.results)}
    known = list(params.runs)
    return sync(params.study, layout.runs, runs, known=known, given=given, checkpoints=checkpoints, figures=figures)


@contextlib.contextmanager
def _at_work(
    params: "Params", stage: str, run_name: str | None = None, *, ends: bool = True, recorded: bool = True
) -> Iterator[None]:
    """Run a stage: `fcos status` shows it, it ends with its DVC, and DVC records it if it was typed by hand."""
    from fcos.running.by_hand import by_hand
    from fcos.running.heartbeat import heartbeat
    from fcos.running.parent import end_with_parents
    from fcos.running.stages import Stage

    end_with_parents()
    record = by_hand(Stage(stage, run_name), params.study, ends=ends) if recorded else contextlib.nullcontext()
    with record, heartbeat(params.study, stage, run_name):
        yield
