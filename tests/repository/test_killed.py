"""A writer killed at any step: nothing half is ever visible, and the same registration then succeeds."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard.errors import NotFound
from modelyard.repository import ModelRepository
from modelyard.store import LocalDisk

DYING = """
import os, signal, sys
from pathlib import Path
from modelyard.repository import Inspection, ModelRepository
from modelyard.store import Cache, LocalDisk, Store
import itertools

def register(folder, store, allowed):
    steps = itertools.count()

    def step():
        if next(steps) == allowed:
            os.kill(os.getpid(), signal.SIGKILL)

    def stepped(stream):
        for chunk in stream:
            step()
            yield chunk

    def dying(original):
        def operation(self, key, *data):
            step()
            if data and not isinstance(data[0], bytes):
                data = (stepped(data[0]),)
            return original(self, key, *data)
        return operation

    for name in ("create", "put", "get", "objects", "delete"):
        setattr(Store, name, dying(getattr(Store, name)))
    repository = ModelRepository(
        LocalDisk(store), cache=Cache(Path("unused")), inspect=lambda folder: Inspection(), user="dying"
    )
    repository.register_model("digits", "1.0.0", folder, {"a": 1})

for line in sys.stdin:
    folder, store, allowed = line.rstrip().split("|")
    if not (child := os.fork()):
        register(folder, store, int(allowed))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def test_killed_at_any_step_nothing_half_is_visible(
    open_repository: Callable[..., ModelRepository], tmp_path: Path
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "weights.bin").write_bytes(b"weights" * 1000)
    (model / "config.json").write_text("{}")
    (model / "big.bin").write_bytes(os.urandom(17 * 1024 * 1024))
    visible_after = []
    command = [sys.executable, "-c", DYING]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writers:
        assert writers.stdin
        assert writers.stdout
        for allowed in range(100):
            folder = tmp_path / f"store-{allowed}"
            writers.stdin.write(f"{model}|{folder}|{allowed}\n")
            writers.stdin.flush()
            code = int(writers.stdout.readline())
            visible_after.append(survives(open_repository(LocalDisk(folder)), model))
            if code == 0:
                break
            assert code == -9
        writers.stdin.close()
    assert code == 0
    # List, entry, manifest?, record, three files (one in three chunks): invisible. Clean-up and metadata: visible.
    assert visible_after == sorted(visible_after)
    assert visible_after.count(False) >= 10
    assert visible_after.count(True) >= 3


def survives(repository: ModelRepository, model: Path) -> bool:
    """Whether the version was visible; asserts that it was whole or not there, and that registering again mends all."""
    visible = repository.list_models() == ["digits"]
    if visible:
        assert repository.verify(repository.resolve("digits")) == []
    else:
        assert repository.list_models() == []
        with pytest.raises(NotFound):
            repository.resolve("digits:v1.0.0")
    registered = repository.register_model("digits", "1.0.0", model, {"a": 1})
    assert repository.verify(registered) == []
    for file in registered.files:
        assert repository.storage.get(file.key) == (model / file.path).read_bytes()
    assert repository.storage.get_json("models/digits/v1.0.0/metadata.json") == {"a": 1}
    return visible
