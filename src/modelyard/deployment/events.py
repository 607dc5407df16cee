"""Events: every entry of the environments' journals goes to a webhook, when one is configured.

The journals are the queue: what was sent last is noted elsewhere, so each entry arrives at least once, in order, though
the process is killed or the receiver is away. The receiver tells repetitions by the entry's id. All of it
happens in a thread of its own and delays nothing.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any, Protocol

import httpx

from modelyard.deployment.rollout import describe
from modelyard.errors import ModelyardError
from modelyard.repository import Deployment, Environment
from modelyard.store import Entry

_INTERVAL_S = 1.0
_LONGEST_S = 60.0
_TIMEOUT_S = 10.0
_AGAIN = {408, 425, 429}  # and whatever is the receiver's own failure

log = logging.getLogger("modelyard.events")


class _NotTaken(Exception):
    """The receiver did not take an event; it may later."""


class Notes(Protocol):
    """Where the numbers of the last entries that were sent are kept, by environment."""

    def read(self) -> dict[str, int]: ...
    def write(self, sent: Mapping[str, int]) -> None: ...


@dataclass(frozen=True, slots=True)
class FileNotes:
    """In a file, of which either the old or the new content is there."""

    path: Path

    def read(self) -> dict[str, int]:
        try:
            return {str(name): int(number) for name, number in json.loads(self.path.read_text()).items()}
        except (FileNotFoundError, ValueError):
            return {}

    def write(self, sent: Mapping[str, int]) -> None:
        beside = self.path.with_suffix(".tmp")
        beside.write_text(json.dumps(dict(sent)))
        beside.rename(self.path)


@dataclass(slots=True)
class Events:
    """Runs beside the reconciler. `address`: where the events go now, None for nowhere; `notes`: which ones have
    gone."""

    environments: Sequence[Environment]
    address: Callable[[], str | None]
    notes: Notes
    http: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=_TIMEOUT_S, follow_redirects=False))
    _stop: Event = field(default_factory=Event)
    _thread: Thread | None = None
    _told: str = ""

    def start(self) -> None:
        self._thread = Thread(target=self._run, daemon=True, name="events")
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join(_TIMEOUT_S)
        self.http.close()

    def send(self) -> None:
        """Send what is new. Raises ModelyardError when the store can't be read, that or OSError when nothing can be
        noted."""
        address = self.address()
        if not address:
            return
        for environment in self.environments:
            sent = self.notes.read().get(environment.name)
            if sent is None:  # what happened before somebody listened is no news
                newest = environment.newest()
                self._note(environment.name, newest.number if newest else 0)
                continue
            for before, entry in environment.since(sent):
                self._post(address, event(environment.name, before, entry, environment.parse))
                self._note(environment.name, entry.number)

    def _run(self) -> None:
        wait = _INTERVAL_S
        while not self._stop.wait(wait):
            try:
                self.send()
                wait, self._told = _INTERVAL_S, ""
            except (ModelyardError, OSError, _NotTaken) as error:
                wait = min(_LONGEST_S, 2 * wait)
                if str(error) != self._told:
                    log.warning("events wait: %s", error)
                    self._told = str(error)

    def _post(self, address: str, body: Mapping[str, Any]) -> None:
        try:
            answer = self.http.post(address, json=body)
        except httpx.HTTPError as error:
            raise _NotTaken(f"the webhook can't be reached: {error}") from error
        if answer.status_code in _AGAIN or answer.status_code >= 500:
            raise _NotTaken(f"the webhook answers {answer.status_code}")
        if not answer.is_success:
            log.warning(
                "the webhook refuses the event %s with %s; it is not sent again", body["id"], answer.status_code
            )

    def _note(self, environment: str, number: int) -> None:
        self.notes.write(self.notes.read() | {environment: number})


def event(
    environment: str, before: Entry | None, entry: Entry, parse: Callable[[Mapping[str, Any]], dict[str, Deployment]]
) -> dict[str, Any]:
    """What is sent of an entry: who, when and why, and each model that it changed, as it is afterwards."""
    was, now = parse(before.state) if before else {}, parse(entry.state)
    changed = {model: deployment for model, deployment in now.items() if was.get(model) != deployment}
    return {
        "id": entry.id,
        "environment": environment,
        "number": entry.number,
        "at": entry.at,
        "by": entry.by,
        "why": entry.why,
        "models": [_model(model, deployment) for model, deployment in sorted(changed.items())],
    }


def _model(model: str, now: Deployment) -> dict[str, Any]:
    pause = now.progress.pause
    return {
        "model": model,
        "serving": str(now.serving) if now.serving else None,
        "target": str(now.target) if now.target else None,
        "rollout": now.rollout,
        "outcome": now.outcome,
        "reason": now.reason or describe(now),
        "step": now.progress.step,
        "paused": asdict(pause) if pause else None,
    }
