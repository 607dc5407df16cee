"""ConfigurationManager: sections of keys and JSON values, in layers, with a history and a way back.

Knows where values come from and which one counts; what they mean is the business of those who read them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from modelyard import defaults
from modelyard.configuration import layers, sections
from modelyard.configuration.changes import ABSENT, Change, State, changes, previous
from modelyard.configuration.layers import Found, Layer
from modelyard.configuration.watching import Snapshot, Watch, Watcher
from modelyard.errors import Conflict, NotFound
from modelyard.store import Entry, Journal, Store


class ConfigurationManager:
    """The configuration of a store, as this process sees it: defaults < bucket < environment < process.

    `environ` holds the variables (see `layers.from_variables`), by default those of this process. `overrides` are
    values for this process alone. Raises SettingsError for a variable and InvalidInput for an override that is wrong.
    """

    def __init__(
        self,
        storage_backend: Store,
        *,
        user: str | None = None,
        environ: Mapping[str, str] | None = None,
        overrides: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.storage = storage_backend
        self._user = user or defaults.yard().settings.user
        self._variables = layers.from_variables(os.environ if environ is None else environ)
        self._process: dict[str, Layer] = {}
        self._journals: dict[str, Journal] = {}
        self._watcher = Watcher(self._read, self._snapshot)
        for section, values in (overrides or {}).items():
            for key, value in values.items():
                self.override(section, key, value)

    def get_config(self, section: str, key: str) -> Any:
        """The value that counts. Raises NotFound for a key that nobody ever set."""
        key = sections.canonical(section, key)
        found = self.effective(section).get(key)
        if found is None:
            raise NotFound(
                f"there is no {key!r} in the configuration section {section!r}",
                remedy=f"set it with `modelyard config set {section} {key} VALUE`",
            )
        return found.value

    def get_section(self, section: str) -> dict[str, Any]:
        """Every key of a section with the value that counts; empty if nothing was ever set."""
        return {key: found.value for key, found in self.effective(section).items()}

    def effective(self, section: str) -> dict[str, Found]:
        """Every key of a section with the value that counts and where it comes from."""
        return self._merged(section, self._read(section))

    def parsed(self, section: str) -> dict[str, Any]:
        """Every key of a section of `sections.SECTIONS` with its value as that section's type."""
        return layers.parse(section, self.effective(section))

    def set_config(self, section: str, key: str, value: Any, *, reason: str = "") -> None:
        """Set one key to a JSON value. Raises InvalidInput for what JSON or the section's type can't hold."""
        key = layers.check(section, key, value)
        self._update(section, lambda state: state | {key: value}, f"set {key}", reason)

    def unset_config(self, section: str, key: str, *, reason: str = "") -> None:
        """Remove a key from the bucket, so that a default counts again. Raises NotFound."""
        key = sections.canonical(section, key)

        def without(state: State) -> State:
            if key not in state:
                raise NotFound(
                    f"there is no {key!r} in the bucket's configuration section {section!r}",
                    remedy=f"see `modelyard config get {section} --origin`",
                )
            return {name: value for name, value in state.items() if name != key}

        self._update(section, without, f"unset {key}", reason)

    def undo(self, section: str, key: str | None = None, *, reason: str = "") -> list[Change]:
        """Take back the last change of a key, or of the section, by one more change; returns what that did.

        Undoing again brings back what was undone. Raises NotFound when there is nothing to undo, InvalidInput when
        the earlier value would be refused today, and Conflict when somebody else changes the section meanwhile.
        """
        key = key and sections.canonical(section, key)
        states = [entry.state for entry in self.history(section)]
        target = previous(states, key)
        if target is None:
            what = f"{key!r} in the configuration section" if key else "the configuration section"
            raise NotFound(f"{what} {section!r} was never set", remedy=f"see `modelyard config history {section}`")
        done = changes(states[-1], target)
        for change in done:
            if change.after is not ABSENT:
                layers.check(section, change.key, change.after)

        def undone(state: State) -> State:
            if changes(state, states[-1]):
                raise Conflict(f"{section} was changed in between", remedy="look again, then undo")
            return target

        self._update(section, undone, f"undo {', '.join(change.key for change in done)}", reason)
        return done

    def override(self, section: str, key: str, value: Any) -> None:
        """Set a value for this process alone, above all others. Raises InvalidInput as `set_config` does."""
        key = layers.check(section, key, value)
        self._process[section] = self._process.get(section, {}) | {key: Found(value, "process")}
        self._watcher.rebuild(section)

    def history(self, section: str) -> list[Entry]:
        """Every change of a section in the bucket, oldest first."""
        return self._journal(section).history()

    def watch(self, section: str, on_change: Callable[[dict[str, Any]], None] | None = None) -> Watch:
        """The section as it is now, kept up to date: changes in the bucket show within two seconds.

        Read `Watch.value` or `Watch.parsed` as often as you like; that costs no request. `on_change` is called with
        every new value, on the manager's one background thread. A store that can't be reached leaves the last value.
        Raises StoreError when it can't be reached now.
        """
        return self._watcher.watch(section, on_change)

    def _update(self, section: str, decide: Callable[[State], State], what: str, reason: str) -> None:
        why = f"{what}: {reason}" if reason else what
        self._journal(section).update(decide, by=self._user, why=why)
        self._watcher.refresh(section)

    def _read(self, section: str, known: Entry | None = None) -> Entry | None:
        return self._journal(section).read(known)

    def _merged(self, section: str, entry: Entry | None) -> Layer:
        bucket = layers.layer(section, entry.state if entry else {}, "bucket")
        above = (self._variables.get(section, {}), self._process.get(section, {}))
        return layers.merged((layers.defaults(section), bucket, *above))

    def _snapshot(self, section: str, entry: Entry | None) -> Snapshot:
        found = self._merged(section, entry)
        return Snapshot({key: each.value for key, each in found.items()}, layers.parse(section, found))

    def _journal(self, section: str) -> Journal:
        layers.check_section(section)
        return self._journals.setdefault(section, Journal(self.storage, f"config/{section}"))
