from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .bench import OLD, VERSION, Bench
from .model_server import FakeModel, gateway


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    models = {"digit:staging": FakeModel(str(VERSION.ref)), "digit:production": FakeModel(OLD)}
    with gateway(models) as url:
        yield Bench(url, tmp_path, models)
