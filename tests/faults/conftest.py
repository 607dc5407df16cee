"""A machine with two good versions registered, `modelyard up` running on it, and what can be asked of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .load import factor
from .machine import SIGNATURE, Machine, save_onnx, save_slow, save_torchscript
from .proxy import FaultyProxy

OLD, NEW, BROKEN, WRONG, SLOW = "v1.1.0", "v1.2.0", "v1.3.0", "v1.4.0", "v1.5.0"


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Version → its file."""
    folder = tmp_path_factory.mktemp("artifacts")
    return {
        OLD: save_onnx(folder / "model.onnx", factor(OLD)),
        NEW: save_torchscript(folder / "model.pt", factor(NEW)),
        BROKEN: save_torchscript(folder / "broken.pt", factor(BROKEN), broken=True),
        WRONG: save_torchscript(folder / "wrong.pt", factor(WRONG) + 1),
        SLOW: save_slow(folder / "slow", factor(SLOW)),
    }


@pytest.fixture
def machine(tmp_path: Path, artifacts: dict[str, Path]) -> Iterator[Machine]:
    """Registered are OLD, NEW, BROKEN, WRONG and SLOW; nothing runs yet."""
    machine = Machine(tmp_path)
    for version, artifact in artifacts.items():
        machine.register(version, artifact, SIGNATURE)
    try:
        yield machine
    finally:
        machine.end()


@pytest.fixture
def proxy(s3: object, s3_server: str) -> Iterator[FaultyProxy]:
    """In front of the S3 server, doing nothing yet."""
    with FaultyProxy(s3_server) as opened:
        yield opened
