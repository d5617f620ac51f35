"""Format numbers and their intervals as text in percent; undefined ones (in COCO) are a dash."""

from collections.abc import Mapping

from fcos.records import Interval

DASH = "—"
NOT_SIGNIFICANT, NOT_TESTED = "(n.s.)", "(not tested)"  # behind a difference


def percent(value: float | None, *, sign: bool = False) -> str:
    """Return a value as "33.9", or with a sign as "+1.3"."""
    return DASH if value is None else f"{100 * value:{'+' if sign else ''}.1f}".replace("-0.0", "0.0")


def plus_minus(value: float | None, interval: Interval) -> str:
    """Return "33.9 ± 0.6", where 0.6 is half the width of the interval, which need not be centred at the value."""
    low, high = interval["low"], interval["high"]
    return percent(value) if low is None or high is None else f"{percent(value)} ± {percent((high - low) / 2)}"


def in_brackets(interval: Interval) -> str:
    """Return an interval as "[33.2, 34.4]"."""
    low, high = interval["low"], interval["high"]
    return DASH if low is None else f"[{percent(low)}, {percent(high)}]"


def metrics_line(metrics: Mapping[str, float | None], intervals: Mapping[str, Interval]) -> str:
    """Return all metrics in one line: "AP 33.9 ± 0.6  AP50 ..."."""
    return "  ".join(f"{name} {plus_minus(value, intervals[name])}" for name, value in metrics.items())
