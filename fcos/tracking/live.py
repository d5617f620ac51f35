"""Log a training to MLflow while it runs, from a separate thread that the training does not wait for."""

import queue
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fcos.progress import say
from fcos.tracking.runs import find_run, log_rows, rows_logged
from fcos.tracking.store import connect, find_experiment, reaching, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

RETRY_S = 60.0  # between two attempts to reach an unavailable store
CLOSE_S = 5.0  # maximum wait for the last rows at the end of a training
MAKING_S = 300.0  # maximum wait for the tables of a new local database, which is useless if incomplete
Row = Mapping[str, float]


class LiveRun:
    """An observer of `fcos train`; the first failure is printed in one line, and logging is retried until the end.

    Rows that have not been logged by then are left to `sync`.
    """

    def __init__(self, study: str) -> None:
        self.study = study
        self._rows: queue.SimpleQueue[tuple[int, Sequence[Row]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._unsent: tuple[int, Sequence[Row]] | None = None
        self._closing, self._given_up = threading.Event(), threading.Event()
        self._connected = threading.Event()

    def started(self, *, run_name: str, key: str) -> None:
        """Connect to MLflow in a thread, so that the training does not wait."""
        self._thread = threading.Thread(target=self._run, args=(run_name, key), name="mlflow", daemon=True)
        self._thread.start()

    def rows(self, rows: Sequence[Row]) -> None:
        """Queue the rows of new steps for the thread."""
        if rows and self._thread is not None and self._thread.is_alive():
            self._rows.put((round(1000 * time.time()), list(rows)))

    def close(self) -> None:
        """Send the remaining rows for at most CLOSE_S, after at most MAKING_S of waiting for a local store."""
        if self._thread is not None:
            self._rows.put(None)
            self._closing.set()
            if tracking_uri().startswith("sqlite:"):
                self._connected.wait(MAKING_S)
            self._thread.join(CLOSE_S)
            self._given_up.set()  # `sync` runs next and must not log the same rows concurrently

    def _run(self, run_name: str, key: str) -> None:
        told = False
        while True:
            try:
                self._send(run_name, key)
                break
            except Exception as error:  # no failure of logging may stop a training
                if not told:
                    say(f"training continues without MLflow and keeps retrying ({error}); to upload: fcos sync-mlflow")
                told = True
            if self._closing.wait(RETRY_S):
                break

    def _send(self, name: str, key: str) -> None:
        try:
            client = connect()
        finally:
            self._connected.set()
        if self._given_up.is_set():
            return
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        with reaching():
            experiment_id = find_experiment(client, self.study)
            run = find_run(
                client,
                experiment_id,
                study=self.study,
                run_name=name,
                key=key,
                start_time=round(1000 * time.time()),
            )
            system: Any = SystemMetricsMonitor  # untyped
            system = system(run.info.run_id, resume_logging=True, tracking_uri=tracking_uri())
            system.start()
            try:
                self._send_rows(client, run)
            finally:
                system.finish()

    def _send_rows(self, client: "MlflowClient", run: "Run") -> None:
        logged = rows_logged(run)
        while not self._given_up.is_set():
            self._unsent = self._unsent or self._rows.get()
            if self._unsent is None:
                break
            time_ms, rows = self._unsent
            new = [row for row in rows if row["step"] >= logged]
            # A resumed training may start after a row that was never logged; `sync` logs the whole history.
            if new and new[0]["step"] == logged:
                log_rows(client, run.info.run_id, new, [time_ms] * len(new), logged=logged)
                logged += len(new)
            self._unsent = None
