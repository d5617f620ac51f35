"""Estimate what a study takes before it runs: images, time and money, from measured trainings or trial steps."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from fcos.config.params import Params
from fcos.config.runs import Run
from fcos.data.coco import CocoSplit, read_split
from fcos.data.images import resized_size
from fcos.data.transforms import padded_size
from fcos.distributed import number_of
from fcos.errors import UserError
from fcos.model.device import device_name, find_device, find_dtype
from fcos.progress import duration, track
from fcos.reporting.text_tables import text_table
from fcos.running.stages import all_stages, stages_of
from fcos.running.time_left import START_S, Network, makespan
from fcos.study.batch_size import make_trial, seconds_per_image
from fcos.study.layout import Layout
from fcos.study.run_files import read_run_file
from fcos.training.loop import Plan

MEASURED, TRIED = (0.8, 1.3), (0.6, 1.7)  # ends of the range as factors of the estimate
_DEVICES = (2, 4)
FORWARD = 1 / 3  # time of a prediction as a share of a training step on equal pixels


@dataclass(frozen=True)
class Speed:
    """Seconds that one of the parallel trainings takes for a pixel of a batch, and where they are from."""

    seconds_per_pixel: float  # on `devices` together
    source: str
    is_measured: bool
    devices: int = 1

    def on(self, devices: int) -> float:
        """Return the seconds for a pixel on this number of devices, if each computes as fast as it does now."""
        return self.seconds_per_pixel * self.devices / devices


@dataclass(frozen=True)
class RunPlan:
    """What one run takes on its share of the machine."""

    run: Run
    images: int  # shown in the training, repeats included
    training_s: float
    prediction_s: float
    start_s: float  # starting its stages
    is_done: bool
    devices: int = 1  # of its training; 1 on a CPU, whose cores several ranks share

    @property
    def seconds(self) -> float:
        """All of its stages."""
        return self.training_s + self.prediction_s + self.start_s

    def on(self, devices: int | None) -> "RunPlan":
        """Return the plan with another number of devices for the training, as `Speed.on`; None: as it is."""
        if devices is None:
            return self
        return replace(self, training_s=self.training_s * self.devices / devices, devices=devices)


@dataclass(frozen=True)
class StudyPlan:
    """What a study takes on this machine."""

    study: str
    where: str  # device and number format
    jobs: int
    num_gpus: int  # of this machine; 0: on a CPU
    runs: list[RunPlan]
    speeds: dict[Network, Speed]
    alone_s: float  # stages that never run in parallel with others

    def seconds(self, *, machines: int = 1, more_seeds: int = 0, devices: int | None = None) -> float:
        """Return the estimated wall time of the whole study, finished trainings included.

        Args:
            devices: of each training, of which one runs at a time; None: as the study says.
        """
        of_runs = [plan.on(devices).seconds for plan in self.runs]
        again = [plan for plan in self.runs if plan.run.seed == self._first_seed(plan.run)]
        of_runs += [plan.on(devices).seconds for plan in again] * more_seeds
        jobs = self.jobs if devices is None else 1
        return self.alone_s + makespan(sorted(of_runs, reverse=True), machines * jobs)

    @property
    def factors(self) -> tuple[float, float]:
        """The ends of the range of each time, as factors."""
        measured = (self.speeds[of.run.backbone, of.run.num_convs] for of in self.runs)
        as_measured = all(
            speed.is_measured and speed.devices == of.devices for of, speed in zip(self.runs, measured, strict=True)
        )
        return MEASURED if as_measured else TRIED

    def _first_seed(self, run: Run) -> int:
        return min(plan.run.seed for plan in self.runs if _settings(plan.run) == _settings(run))


def plan_study(study: Params, jobs: int) -> StudyPlan:
    """Return what the study takes if it runs on this machine with `jobs` trainings at a time.

    Raises:
        UserError: the data are not prepared, or no run is trained.
    """
    layout = Layout(study.study)
    if not study.runs:
        raise UserError("params.yaml: runs", "nothing is trained in this study", expected="a study with trainings")
    train, test = (read_split(layout.data, split) for split in ("train", "test"))
    trained = [run for run in study.runs.values() if run.checkpoint is None]
    if not trained:
        raise UserError("params.yaml: runs", "no run is trained", expected="a run without `checkpoint`")
    device = find_device(trained[0].train.device)
    dtype = str(find_dtype(trained[0].train.precision, device)).removeprefix("torch.")
    where = f"{device_name(device)}, {dtype}"
    devices = {run.name: _devices_of(run.train.devices, device) for run in trained}
    wanted: dict[Network, int] = {(run.backbone, run.num_convs): devices[run.name] for run in trained}
    speeds = _measured(trained, layout, where, wanted)
    speeds |= _tried([run for run in trained if (run.backbone, run.num_convs) not in speeds], train, jobs)
    sides = {study.test.size, *study.tta.sizes}
    seen = {side: _pixels_of(test, side, study.test.max_size) for side in sides}
    predicting = _devices_of(study.test.devices, device)
    runs = [
        _plan_run(run, study, train, seen, speeds[run.backbone, run.num_convs], devices[run.name], predicting)
        for run in trained
    ]
    stages = [stage for stage in all_stages(study) if stage.run_name is None]
    return StudyPlan(
        study.study,
        where,
        jobs,
        torch.cuda.device_count() if device.type == "cuda" else 0,
        runs,
        speeds,
        START_S * len(stages),
    )


def plan_text(plan: StudyPlan, price: float | None) -> str:
    """Return the plan in words, each time as a range; `price` is that of one machine for an hour."""
    done = sum(of.is_done for of in plan.runs)
    images = sum(of.images for of in plan.runs)
    trainings = f"{len(plan.runs)} training{'' if len(plan.runs) == 1 else 's'}"
    head = (
        f"study {plan.study}: {trainings}, {done} done; {images:,} images shown to networks; "
        f"{plan.jobs} at a time on {plan.where}"
    )
    rows = [
        [what, _range(seconds, factors), *([] if price is None else [_cost(machines * seconds, factors, price)])]
        for what, machines, seconds, factors in _choices(plan)
    ]
    header = ["the whole study", "time", *([] if price is None else [f"price at {price:g} per hour and machine"])]
    networks = text_table(["network", "trainings", "images", "training time", "images/s", "from"], _network_rows(plan))
    return "\n\n".join([head, networks, text_table(header, rows), _notes(plan)])


def _choices(plan: StudyPlan) -> list[tuple[str, float, float, tuple[float, float]]]:
    """Return what one may choose: words, machines, seconds, and the ends of their range as factors."""
    measured = plan.factors
    choices: list[tuple[str, float, float, tuple[float, float]]]
    choices = [("on this machine", 1, plan.seconds(), measured)]
    choices += [(f"on {count} such machines", count, plan.seconds(machines=count), measured) for count in (2, 4)]
    if plan.num_gpus:
        choices += [
            (
                f"on {count} such devices, each training on all",
                count / plan.num_gpus,
                plan.seconds(devices=count),
                TRIED,
            )
            for count in _DEVICES
        ]
    return [*choices, ("with one more seed for each setting", 1, plan.seconds(more_seeds=1), measured)]


def plan_json(plan: StudyPlan, price: float | None) -> dict[str, Any]:
    """Return the plan as JSON; seconds are those of the estimate, `range` its ends as factors."""
    return {
        "study": plan.study,
        "where": plan.where,
        "jobs": plan.jobs,
        "trainings": len(plan.runs),
        "images": sum(of.images for of in plan.runs),
        "seconds": round(plan.seconds(), 1),
        "seconds_on_machines": {str(count): round(plan.seconds(machines=count), 1) for count in (2, 4)},
        "seconds_on_devices": (
            {str(count): round(plan.seconds(devices=count), 1) for count in _DEVICES} if plan.num_gpus else None
        ),
        "seconds_with_one_more_seed": round(plan.seconds(more_seeds=1), 1),
        "range": list(plan.factors),
        "price": None if price is None else {"per_hour": price, "estimate": round(plan.seconds() / 3600 * price, 2)},
        "runs": {
            of.run.name: {"images": of.images, "seconds": round(of.seconds, 1), "devices": of.devices}
            for of in plan.runs
        },
    }


def _devices_of(devices: int | Literal["all"], device: torch.device) -> int:
    """Return the devices of a training or prediction; 1 on a CPU, where several ranks share the cores."""
    return number_of(devices, device) if device.type == "cuda" else 1


def _measured(runs: Sequence[Run], layout: Layout, where: str, wanted: Mapping[Network, int]) -> dict[Network, Speed]:
    """Return the speed of each network that was trained in this study on the same kind of device in the same format.

    Args:
        wanted: devices of a training of each network; a speed on as many is preferred.
    """
    found: dict[Network, list[Speed]] = defaultdict(list)
    for run in runs:
        try:
            was = read_run_file(layout.run(run.name) / "train.json", ["provenance"])["provenance"]
        except UserError:
            continue
        if f"{was.get('device')}, {was.get('dtype')}" == where and "mean_pixels" in was:
            count = 1 if where.startswith("cpu") else was.get("devices", 1)
            source = f"measured in {run.name}" + (f" on {count} devices" if count > 1 else "")
            seconds = 1 / (was["images_per_s"] * was["mean_pixels"])
            found[run.backbone, run.num_convs].append(Speed(seconds, source, True, count))
    return {network: _best_known(speeds, wanted[network]) for network, speeds in found.items()}


def _best_known(speeds: Sequence[Speed], devices: int) -> Speed:
    """Return the mean speed of trainings on so many devices, or else of those on as many as the first."""
    first = next((speed for speed in speeds if speed.devices == devices), speeds[0])
    alike = [speed.seconds_per_pixel for speed in speeds if speed.devices == first.devices]
    return replace(first, seconds_per_pixel=sum(alike) / len(alike))


def _tried(runs: Sequence[Run], split: CocoSplit, jobs: int) -> dict[Network, Speed]:
    """Try three training steps of each network with the threads that it will have."""
    distinct = {(run.backbone, run.num_convs): run for run in reversed(runs)}
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // jobs))
    try:
        return {
            network: _try(run, split)
            for network, run in track(list(distinct.items()), "try", total=len(distinct), unit="networks")
        }
    finally:
        torch.set_num_threads(threads)


def _try(run: Run, split: CocoSplit) -> Speed:
    trial = make_trial(run, len(split.categories))
    side = int(_pixels_per_image(run, split) ** 0.5)
    size = padded_size([(side, side)], run.train.pad_multiple)
    seconds = seconds_per_image(trial, size, min(run.train.batch_size, len(split.images)))
    return Speed(seconds / (size[0] * size[1]), "three trial steps", False)


def _plan_run(
    run: Run,
    study: Params,
    train: CocoSplit,
    seen: Mapping[int, int],
    speed: Speed,
    devices: int,
    predicting: int,
) -> RunPlan:
    """Return the plan of a run, given the pixels of all test images by the length of the shorter side.

    Args:
        devices, predicting: number of devices of the training and of predictions.
    """
    assert run.epochs is not None
    images = len(train.image_ids) * (run.train.warmup_epochs + run.epochs)
    sides = [study.test.size] + (list(study.tta.sizes) if run.name in study.tta.runs else [])
    layout = Layout(study.study)
    return RunPlan(
        run=run,
        images=images,
        training_s=speed.on(devices) * images * _pixels_per_image(run, train),
        prediction_s=FORWARD * speed.on(predicting) * sum(seen[side] for side in sides),
        start_s=START_S * len(stages_of(run.name, study)),
        is_done=(layout.run(run.name) / "train.json").exists(),
        devices=devices,
    )


def _pixels_per_image(run: Run, split: CocoSplit) -> float:
    assert run.epochs is not None
    return Plan(image_sizes=split.image_sizes, epochs=run.epochs, seed=run.seed, config=run.train).mean_pixels()


def _pixels_of(split: CocoSplit, shorter: int, longest: int) -> int:
    sizes = (padded_size([resized_size(size, shorter, longest)]) for size in split.image_sizes.values())
    return sum(height * width for height, width in sizes)


def _settings(run: Run) -> str:
    return run.model_dump_json(exclude={"name", "seed", "role"})


def _network_rows(plan: StudyPlan) -> list[list[str]]:
    rows = []
    for network, speed in plan.speeds.items():
        runs = [of for of in plan.runs if (of.run.backbone, of.run.num_convs) == network]
        images, seconds = sum(of.images for of in runs), sum(of.training_s for of in runs)
        name = f"{network[0]}, num_convs {network[1]}"
        rows.append([name, str(len(runs)), f"{images:,}", duration(seconds), f"{images / seconds:.1f}", speed.source])
    return rows


def _notes(plan: StudyPlan) -> str:
    low, high = plan.factors
    said = [f"Ranges are {low:g} to {high:g} times the estimate; training times are for one of the parallel trainings."]
    if plan.num_gpus:
        return " ".join([*said, "Times on several devices assume that a training scales perfectly."])
    return " ".join(
        [
            *said,
            *(
                ["Ranks on a CPU share its cores, so train.devices does not change the time."]
                * plan.where.startswith("cpu")
            ),
            "The time on a GPU is unknown until a training has run on it.",
        ]
    )


def _range(seconds: float, factors: tuple[float, float]) -> str:
    return " to ".join(duration(seconds * factor) for factor in factors)


def _cost(seconds: float, factors: tuple[float, float], price: float) -> str:
    return " to ".join(f"{seconds * factor / 3600 * price:.2f}" for factor in factors)
