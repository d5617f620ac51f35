"""The version of the installed package; a module of its own, so that a release changes no code of a stage."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version

DISTRIBUTION = "fcos-study"
UNKNOWN = "0+unknown"


@cache
def own_version() -> str:
    """Return the version, or `0+unknown` if this is a folder of code that was never installed."""
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return UNKNOWN
