"""Getting ready sooner: what the start of a process that loads models once need not wait for."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module

from modelyard.repository.manifest import ModelVersion
from modelyard.serving.runtimes import RUNTIMES


@contextmanager
def imports_ahead(versions: Sequence[ModelVersion]) -> Iterator[None]:
    """Import what the versions need while the block fetches and hashes their files. What can't be imported is told by
    whoever needs it."""
    modules = dict.fromkeys(RUNTIMES.get(version.model.format or "") for version in versions)
    with ThreadPoolExecutor(1) as ahead:
        for module in ("modelyard.serving.server", *filter(None, modules)):
            ahead.submit(import_module, module)
        yield


@contextmanager
def without_collection() -> Iterator[None]:
    """No garbage collection in the block, and none of what it leaves afterwards.

    Importing makes a million objects, and hardly one is garbage: looking through them takes a tenth of the start,
    and again at every full collection while requests wait.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
