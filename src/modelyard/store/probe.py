"""What a store must be able to do before anything is trusted to it."""

from __future__ import annotations

import uuid
from pathlib import Path

from modelyard.errors import InvalidInput, StoreError
from modelyard.store.objects import Store

_PREFIXES = {
    *("access", "catalog", "changes", "config", "datasets", "deployments", "evidence"),
    *("models", "pipelines", "probe", "uploads", "versions"),
}


def check_folder(folder: Path) -> None:
    """Raises InvalidInput for a folder that holds anything else than a store: their files would be mixed."""
    if folder.is_dir() and any(entry.name not in _PREFIXES for entry in folder.iterdir()):
        raise InvalidInput(
            f"{folder} holds other files", remedy=f"give a new or empty folder, such as {folder / '.modelyard'}"
        )


def probe(store: Store) -> None:
    """Try create-if-absent and listing with small objects of our own. Raises StoreError saying what is lacking."""
    prefix = f"probe/{uuid.uuid4().hex}"
    keys = [f"{prefix}/{name}" for name in ("b", "a", "c")]
    try:
        if not all(store.create(key, b"first") for key in keys) or store.create(keys[0], b"second"):
            raise StoreError(f"{store.url} has no create-if-absent", remedy="use a store that honours If-None-Match")
        if store.get(keys[0]) != b"first":
            raise StoreError(f"{store.url} overwrote an object it should have kept", remedy="use another store")
        listed = [found.key for found in store.objects(prefix)]
        if sorted(listed) != sorted(keys) or (store.ordered and listed != sorted(keys)):
            raise StoreError(f"{store.url} does not list what was just written, in order", remedy="use another store")
    finally:
        store.delete(keys)
