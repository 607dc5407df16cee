"""What a store can do: what it must, before anything is trusted to it, and what it may lack. Knows no provider."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal

import httpx

from modelyard.errors import InvalidInput, StoreError
from modelyard.store.objects import Store

State = Literal["ok", "changed", "proposed", "lacking", "not permitted", "not applicable", "unknown"]

_PREFIXES = {
    *("access", "catalog", "changes", "config", "datasets", "deployments", "evidence"),
    *("models", "pipelines", "probe", "uploads", "versions"),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found out about one ability of a store. `command` is what somebody may run to change it."""

    check: str
    state: State
    detail: str
    command: str = ""

    def __str__(self) -> str:
        return f"{self.detail}: {self.command}" if self.command else self.detail


def check_folder(folder: Path) -> None:
    """Raises InvalidInput for a folder that holds anything else than a store: their files would be mixed."""
    if folder.is_dir() and any(entry.name not in _PREFIXES for entry in folder.iterdir()):
        raise InvalidInput(
            f"{folder} holds other files", remedy=f"give a new or empty folder, such as {folder / '.modelyard'}"
        )


def probe(store: Store) -> list[Finding]:
    """Try everything with small objects of our own, which are removed again.

    Raises StoreError saying what is lacking of what every part relies on.
    """
    prefix = f"probe/{uuid.uuid4().hex}"
    keys = [f"{prefix}/{name}" for name in ("b", "a", "c")]
    copied = f"{prefix}/copied"
    try:
        created = _create(store, keys)
        listed = _list(store, prefix, keys)
        return [created, listed, _copy(store, keys[0], copied), _range(store, keys[0]), _presign(store, keys[0])]
    finally:
        store.delete([*keys, copied])


def _create(store: Store, keys: list[str]) -> Finding:
    if not all(store.create(key, b"first") for key in keys) or store.create(keys[0], b"other"):
        raise StoreError(f"{store.url} has no create-if-absent", remedy="use a store that honours If-None-Match")
    if store.get(keys[0]) != b"first":
        raise StoreError(f"{store.url} overwrote an object it should have kept", remedy="use another store")
    return Finding("create-if-absent", "ok", "an object that is there is not written again")


def _list(store: Store, prefix: str, keys: list[str]) -> Finding:
    listed = [found.key for found in store.objects(prefix)]
    if sorted(listed) != sorted(keys) or (store.ordered and listed != sorted(keys)):
        raise StoreError(f"{store.url} does not list what was just written, in order", remedy="use another store")
    return Finding("listing", "ok", f"complete {'and in order ' if store.ordered else ''}right after a write")


def _copy(store: Store, source: str, destination: str) -> Finding:
    try:
        store.copy(source, destination)
        right = store.get(destination) == b"first"
    except StoreError as error:
        return Finding("server-side copy", "lacking", error.message)
    if not right:
        raise StoreError(f"{store.url} copies an object into another one", remedy="use another store")
    return Finding("server-side copy", "ok", "files are copied inside the store")


def _range(store: Store, key: str) -> Finding:
    if store.get_range(key, 1, 3) != b"irs":
        raise StoreError(f"{store.url} does not give ranges of an object", remedy="use a store that honours Range")
    return Finding("range reads", "ok", "parts of a file can be read alone")


def _presign(store: Store, key: str) -> Finding:
    """The address is tried and forgotten: whoever has it can read the object."""
    what = "presigned URLs"
    try:
        address = store.presign(key, expires=timedelta(minutes=1))
        if address is None:
            return Finding(what, "not applicable", "files are handed out by modelyard itself")
        answer = httpx.get(address, timeout=30)
    except StoreError as error:
        return Finding(what, "lacking", error.message)
    except httpx.HTTPError as error:
        return Finding(what, "lacking", f"the address does not answer ({type(error).__name__})")
    if answer.content != b"first":
        return Finding(what, "lacking", f"the store answers {answer.status_code}")
    return Finding(what, "ok", "clients can fetch files from the store itself")
