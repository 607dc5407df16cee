"""The controller of one machine: the reconciler's loop, at most one for each store, until it is told to stop.

Killed, it leaves its replicas and the gateway running, and the next one takes them over. Told to stop, it ends them.
"""

from __future__ import annotations

import fcntl
import logging
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from types import FrameType
from typing import IO

from modelyard.deployment.reconciler import Reconciler
from modelyard.deployment.targets.local import LocalTarget
from modelyard.errors import Conflict
from modelyard.gateway import Gateway

log = logging.getLogger("modelyard.controller")

_POLL_S = 0.1
_LOOK_S = 0.5  # who asks whether a controller runs holds its lock for a moment


class Controller:
    """Runs in the foreground; `folder` holds its lock and everything its target and gateway keep."""

    def __init__(self, folder: Path, reconciler: Reconciler, target: LocalTarget, gateway: Gateway) -> None:
        self._folder = folder
        self._reconciler = reconciler
        self._target = target
        self._gateway = gateway
        self._stop = Event()

    def run(self) -> None:
        """Until SIGTERM or SIGINT. Raises Conflict when another one runs, Unavailable when the port is taken."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask_to_stop)
        with lock(self._folder):
            self._gateway.start()
            self._reconciler.run(self._stop)
            self._end()

    def _ask_to_stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stop.set()

    def _end(self) -> None:
        """The gateway first, so that what is under way still gets its answers; then the replicas."""
        log.info("stopping")
        self._gateway.stop()
        for replica in self._target.observe():
            self._target.stop(replica.id)
        while self._target.observe():
            time.sleep(_POLL_S)


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the system lets go of it when the process ends, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "up.lock").open("w") as file:
        deadline = time.monotonic() + _LOOK_S
        while not _locked(file, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise Conflict(
                    "`modelyard up` runs already for this store on this machine", remedy="use it, or stop it first"
                )
            time.sleep(_POLL_S)
        yield


def running(folder: Path) -> bool:
    """Whether a controller holds the folder's lock."""
    try:
        with (folder / "up.lock").open("r") as file:
            return not _locked(file, fcntl.LOCK_SH)
    except FileNotFoundError:
        return False


def _locked(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
