"""Sections that are kept up to date in the background: one thread a manager, one LIST a section a second.

Knows when to read and whom to tell; how a section is read and put together is given.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from modelyard.errors import ModelyardError
from modelyard.store import Entry

PERIOD_S = 1.0

OnChange = Callable[[dict[str, Any]], None]
Read = Callable[[str, Entry | None], Entry | None]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A section at one time: its values as they were set, and as their types."""

    value: dict[str, Any]
    parsed: dict[str, Any]


Build = Callable[[str, Entry | None], Snapshot]


@dataclass(slots=True, eq=False)
class _Section:
    """What is known of a watched section, and who wants to hear of it."""

    name: str
    entry: Entry | None
    snapshot: Snapshot
    problem: str = ""
    watches: list[Watch] = field(default_factory=list)


class Watch:
    """A section that stays up to date until `close`, which a `with` block calls."""

    def __init__(self, watcher: Watcher, section: _Section, on_change: OnChange | None) -> None:
        self._watcher = watcher
        self._section = section
        self.on_change = on_change
        self.told = section.snapshot.value

    @property
    def value(self) -> dict[str, Any]:
        """Every key with its value."""
        return dict(self._now().value)

    @property
    def parsed(self) -> dict[str, Any]:
        """Every key with its value as the section's type."""
        return self._now().parsed

    @property
    def problem(self) -> str:
        """Why the value may be an old one: the store can't be reached, or holds what can't be read. Empty if fresh."""
        return self._section.problem

    def close(self) -> None:
        """Nothing is told or refreshed any more; the last value stays."""
        self._watcher.forget(self._section, self)

    def _now(self) -> Snapshot:
        self._watcher.ensure_running()
        return self._section.snapshot

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class Watcher:
    """All watches of one manager."""

    def __init__(self, read: Read, build: Build) -> None:
        self._read = read
        self._build = build
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._sections: dict[str, _Section] = {}
        self._thread: threading.Thread | None = None

    def watch(self, name: str, on_change: OnChange | None) -> Watch:
        section = self._sections.get(name)
        if section is None:
            entry = self._read(name, None)
            section = _Section(name, entry, self._build(name, entry))
        with self._lock:
            section = self._sections.setdefault(name, section)
            watch = Watch(self, section, on_change)
            section.watches.append(watch)
        self.ensure_running()
        return watch

    def forget(self, section: _Section, watch: Watch) -> None:
        with self._lock:
            if watch in section.watches:
                section.watches.remove(watch)
            if not section.watches:
                self._sections.pop(section.name, None)
        self._wake.set()

    def ensure_running(self) -> None:
        """Start the thread where there is none: at first, and in a forked process, which has its parent's no more."""
        if not self._sections or (self._thread is not None and self._thread.is_alive()):
            return
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                arguments = (weakref.ref(self), self._wake)
                self._thread = threading.Thread(target=_run, args=arguments, name="configuration", daemon=True)
                self._thread.start()

    def refresh(self, name: str) -> None:
        """Let this process see its own change at once."""
        section = self._sections.get(name)
        if section is not None:
            self._renew(section)
            self._wake.set()

    def rebuild(self, name: str) -> None:
        """The layers above the bucket have changed, which is no reason to ask the store."""
        section = self._sections.get(name)
        if section is not None:
            section.snapshot = self._build(name, section.entry)
            self._wake.set()

    def poll(self) -> bool:
        """Renew every section and tell of changes; False when there is nothing to watch."""
        with self._lock:
            sections = list(self._sections.values())
            if not sections:
                self._thread = None
                return False
        for section in sections:
            self._renew(section)
            _tell(section)
        return True

    def _renew(self, section: _Section) -> None:
        try:
            entry = self._read(section.name, section.entry)
            snapshot = self._build(section.name, entry)
        except ModelyardError as error:
            if section.problem != str(error):
                section.problem = str(error)
                _log.warning("the configuration section %s is as it was: %s", section.name, error)
            return
        with self._lock:
            if _number(entry) >= _number(section.entry):
                section.entry, section.snapshot, section.problem = entry, snapshot, ""


def _number(entry: Entry | None) -> int:
    return entry.number if entry else 0


def _tell(section: _Section) -> None:
    value = section.snapshot.value
    for watch in list(section.watches):
        if watch.told == value:
            continue
        watch.told = value
        if watch.on_change is not None:
            try:
                watch.on_change(dict(value))
            except Exception as error:  # what others do with a value must not end the watching
                _log.warning("what follows the configuration section %s failed: %r", section.name, error)


def _run(watcher: weakref.ref[Watcher], wake: threading.Event) -> None:
    """Poll until nothing is watched, or nobody holds the manager any more."""
    while True:
        wake.wait(PERIOD_S)
        wake.clear()
        alive = watcher()
        if alive is None or not alive.poll():
            return
        del alive
