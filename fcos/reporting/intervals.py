"""Numbers with their intervals as text, in percent; a dash where COCO defines none."""

from collections.abc import Mapping

from fcos.records import Interval

DASH = "—"


def percent(value: float | None, *, sign: bool = False) -> str:
    """33.9, or +1.3 with a sign."""
    return DASH if value is None else f"{100 * value:{'+' if sign else ''}.1f}".replace("-0.0", "0.0")


def plus_minus(value: float | None, interval: Interval) -> str:
    """33.9 ± 0.6: half of the interval's width, which need not be centred at the number."""
    low, high = interval["low"], interval["high"]
    return percent(value) if low is None or high is None else f"{percent(value)} ± {percent((high - low) / 2)}"


def in_brackets(interval: Interval) -> str:
    """[33.2, 34.4]."""
    low, high = interval["low"], interval["high"]
    return DASH if low is None else f"[{percent(low)}, {percent(high)}]"


def metrics_line(metrics: Mapping[str, float | None], intervals: Mapping[str, Interval]) -> str:
    """AP 33.9 ± 0.6  AP50 ... in one line."""
    return "  ".join(f"{name} {plus_minus(value, intervals[name])}" for name, value in metrics.items())
