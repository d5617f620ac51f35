"""Check the project's own database before MLflow opens it, and set a damaged one aside for a new one."""

import contextlib
import sqlite3
from itertools import count
from pathlib import Path

from fcos.errors import names_of
from fcos.progress import say

_BESIDE = ("", "-journal", "-wal", "-shm")  # an old journal would be applied to the new database
_OURS = {"alembic_version", "experiments"}
WAIT_S = 5.0  # wait for a program that holds the database
renewed: list[Path] = []  # set aside by this process; all runs must be logged to the new database


class Unusable(Exception):
    """The database cannot be used by MLflow and is left unchanged."""


class Damaged(Unusable):
    """The database is corrupt."""


def check_database(path: Path) -> None:
    """Check that MLflow can use the database at `path`, if it exists.

    Raises:
        Damaged: the file is no longer a database.
        Unusable: it is a folder, the database of another program, locked by another program, or not readable.
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
        raise Unusable(f"{error}; another program may be using it, or you may lack permission") from None
    except sqlite3.DatabaseError as error:
        raise Damaged(str(error)) from None
    if said != "ok":
        raise Damaged(" ".join(str(said).split()))
    if tables and not tables & _OURS:
        raise Unusable(f"it is a database of something else, with tables {names_of(sorted(tables))}")


def set_aside(path: Path, why: Damaged) -> None:
    """Rename a damaged database and its journal files to a free name, and print that."""
    kept = next(name for n in count(1) if not (name := path.with_name(f"{path.name}.damaged-{n}")).exists())
    for ending in _BESIDE:
        part = path.with_name(path.name + ending)
        if part.exists():
            part.rename(kept.with_name(kept.name + ending))
    renewed.append(kept)
    say(
        f"warning: {path.name} was damaged ({why}); it is {kept.name} now, and a new one is filled from the runs' files"
    )
