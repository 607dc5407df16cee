"""A real Envoy and real servers behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from modelyard.gateway import Gateway
from modelyard.settings import GatewaySettings
from ports import free_port

from .upstreams import Client, Upstream

BODY_LIMIT = 3 * 1024 * 1024  # above Envoy's default buffer of 1 MiB


@pytest.fixture
def settings() -> GatewaySettings:
    return GatewaySettings(port=free_port(), body_limit=BODY_LIMIT)


@pytest.fixture
def gateway(tmp_path: Path, settings: GatewaySettings) -> Iterator[Gateway]:
    gateway = Gateway(tmp_path / "gateway", settings)
    gateway.start()
    yield gateway
    gateway.stop(drain_s=0)


@pytest.fixture
def client(gateway: Gateway, settings: GatewaySettings) -> Iterator[Client]:
    with Client(settings.port) as client:
        yield client


@pytest.fixture
def upstream() -> Iterator[Callable[[str], Upstream]]:
    """Starts a server; all are stopped in the end."""
    with ExitStack() as stack:

        def start(name: str) -> Upstream:
            return stack.enter_context(Upstream(name))

        yield start
