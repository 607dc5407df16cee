"""The controller of one machine: the reconciler's loop, at most one for each store, until it is told to stop.

Killed, it leaves its replicas and the gateway running, and the next one takes them over. Told to stop, it ends them.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import signal
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event, Thread
from types import FrameType
from typing import IO, Protocol

from modelyard.deployment.reconciler import Reconciler
from modelyard.deployment.targets.local import LocalTarget
from modelyard.errors import Conflict, SettingsError, Unavailable
from modelyard.gateway import Gateway

log = logging.getLogger("modelyard.controller")

_LOCK = "up.lock"
_TRUSTED = "trusted.json"
_POLL_S = 0.1
_LOOK_S = 0.5  # who asks whether a controller runs holds its lock for a moment


class Companion(Protocol):
    """What runs in the same process, in threads of its own, as long as the controller does."""

    def start(self) -> None:
        """Raises Unavailable when it can't."""
        ...

    def stop(self) -> None: ...


class Controller:
    """Runs in the foreground; `folder` holds its lock and everything its target and gateway keep. `trusts`: whose code
    may run here, which those who promote want to know before a rollout begins."""

    def __init__(
        self,
        folder: Path,
        reconciler: Reconciler,
        target: LocalTarget,
        gateway: Gateway,
        *,
        trusts: Collection[str] = (),
        companions: Sequence[Companion] = (),
    ) -> None:
        self._folder = folder
        self._reconciler = reconciler
        self._target = target
        self._gateway = gateway
        self._trusts = trusts
        self._companions = companions
        self._stop = Event()
        self._hurry = Event()
        self._lost = Event()

    def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Until SIGTERM or SIGINT; the second one ends replicas at once. `ready` is called when everything listens.

        Raises Conflict when another one runs, SettingsError when the folder can't be used, Unavailable when a port is
        taken or the folder vanishes.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask_to_stop)
        with lock(self._folder) as held, ExitStack() as companions:
            (self._folder / _TRUSTED).write_text(json.dumps(list(self._trusts)))
            for companion in self._companions:
                companion.start()
                companions.callback(companion.stop)
            self._gateway.start()
            ready()
            Thread(target=self._watch, args=(held,), daemon=True).start()
            self._reconciler.run(self._stop)
            if self._lost.is_set():
                self._abandon()
            self._end()

    def _ask_to_stop(self, _number: int, _frame: FrameType | None) -> None:
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    def _watch(self, held: IO[str]) -> None:
        """Without its folder a controller knows nothing of its replicas, and another one could start beside it."""
        while not self._stop.wait(_POLL_S):
            if not _is_at(held, self._folder / _LOCK):
                self._lost.set()
                self._stop.set()

    def _abandon(self) -> None:
        self._target.end_children()
        self._gateway.stop(drain_s=0)
        raise Unavailable(
            f"the folder {self._folder} was removed while `modelyard up` ran; what it had started is ended",
            remedy="start `modelyard up` again",
        )

    def _end(self) -> None:
        """The gateway first, so that what is under way still gets its answers; then the replicas."""
        log.info("stopping")
        self._gateway.stop()
        ending = self._target.running()
        for replica in ending:
            self._target.stop(replica)
        while ending := ending & self._target.running():
            if self._hurry.is_set():
                for replica in ending:
                    self._target.give_up(replica, "it was ended at once")
            time.sleep(_POLL_S)


@contextmanager
def lock(folder: Path) -> Iterator[IO[str]]:
    """Hold the folder's lock; the system lets go of it when the process ends, however it ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / _LOCK).open("w")
    except OSError as error:
        raise SettingsError(
            f"the folder {folder} can't be used: {error.strerror}",
            remedy="set MODELYARD_STATE to one that can be written",
        ) from error
    with file:
        deadline = time.monotonic() + _LOOK_S
        while not _locked(file, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise Conflict(
                    "`modelyard up` runs already for this store on this machine", remedy="use it, or stop it first"
                )
            time.sleep(_POLL_S)
        yield file


def running(folder: Path) -> bool:
    """Whether a controller holds the folder's lock."""
    try:
        with (folder / _LOCK).open("r") as file:
            return not _locked(file, fcntl.LOCK_SH)
    except (FileNotFoundError, NotADirectoryError):
        return False


def trusted(folder: Path) -> Collection[str] | None:
    """Whose code the controller that holds the folder's lock may run; None where none does, or it does not say."""
    try:
        return tuple(json.loads((folder / _TRUSTED).read_text())) if running(folder) else None
    except (OSError, ValueError):
        return None


def _locked(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(file: IO[str], path: Path) -> bool:
    """Whether this very file still lies there."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False
