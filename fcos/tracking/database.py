"""The project's own database, looked at before MLflow opens it: a damaged one makes room for a new one."""

import contextlib
import sqlite3
from itertools import count
from pathlib import Path

from fcos.errors import names_of
from fcos.progress import say

_BESIDE = ("", "-journal", "-wal", "-shm")  # a journal of the old one would be played into the new one
_OURS = {"alembic_version", "experiments"}
WAIT_S = 5.0  # for a program that holds it
renewed: list[Path] = []  # what this process set aside: all runs are to be told to the new one


class Unusable(Exception):
    """The database is none that MLflow could use, and is left as it is."""


class Damaged(Unusable):
    """Its numbers cannot be read."""


def check_database(path: Path) -> None:
    """Raise where there is something at `path` that MLflow could not use.

    Raises:
        Damaged: it is no database any more.
        Unusable: it is a folder, of something else, held by another program, or may not be read.
    """
    if path.is_dir():
        raise Unusable("it is a folder")
    if not path.exists() or path.stat().st_size == 0:
        return
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", WAIT_S, uri=True)) as database:
            (said,) = database.execute("PRAGMA quick_check(1)").fetchone()
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.OperationalError as error:  # "is locked", "unable to open"
        raise Unusable(f"{error}; another program may hold it, or its permissions are not yours") from None
    except sqlite3.DatabaseError as error:
        raise Damaged(str(error)) from None
    if said != "ok":
        raise Damaged(" ".join(str(said).split()))
    if tables and not tables & _OURS:
        raise Unusable(f"it is a database of something else, with tables {names_of(sorted(tables))}")


def set_aside(path: Path, why: Damaged) -> None:
    """Rename a damaged database, with what belongs to it, to a name that is free, and say so."""
    kept = next(name for n in count(1) if not (name := path.with_name(f"{path.name}.damaged-{n}")).exists())
    for ending in _BESIDE:
        part = path.with_name(path.name + ending)
        if part.exists():
            part.rename(kept.with_name(kept.name + ending))
    renewed.append(kept)
    say(
        f"warning: {path.name} was damaged ({why}); it is {kept.name} now, and a new one is filled from the runs' files"
    )
