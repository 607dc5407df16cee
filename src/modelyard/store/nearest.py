"""Which store is meant where none is named: the nearest one upward, as git does, else that of the home folder."""

from __future__ import annotations

from pathlib import Path

from modelyard.errors import NotFound
from modelyard.settings import STORE_FOLDER


def nearest_store(folder: Path) -> Path:
    """The store's folder in a folder or above it, else the one in the home folder. Raises NotFound."""
    found = next((p / STORE_FOLDER for p in (folder, *folder.parents) if (p / STORE_FOLDER).is_dir()), None)
    home = Path.home() / STORE_FOLDER
    if found is None and not home.is_dir():
        raise NotFound(
            f"there is no store: no {STORE_FOLDER} in {folder} or above it, nor in the home folder",
            remedy="make one with `modelyard init`, or name one with --store or MODELYARD_STORE",
        )
    return found or home
