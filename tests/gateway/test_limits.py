"""Limits on requests, counted by a real Envoy: for each token and model, and over every change of routes and limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from access.support import Office
from modelyard.access import Rules
from modelyard.configuration.sections import RateLimit
from modelyard.gateway import Gateway, Route, RouteTable, limits
from modelyard.settings import GatewaySettings

from .upstreams import Answer, Client, Upstream, backend

Start = Callable[[str], Upstream]
HOURLY = {"requests_per_minute": 1}  # a request a minute: no test lasts until the next


@pytest.fixture
def table(upstream: Start) -> RouteTable:
    server = upstream("server")
    backends = tuple(backend(name, server.endpoint()) for name in ("digits", "faces"))
    return RouteTable(backends, tuple(Route((b.model, f"{b.model}:production"), ((b.id, 1),)) for b in backends))


def ask(settings: GatewaySettings, model: str, token: str | None = None, path: str = "/v1/completions") -> Answer:
    with Client(settings.port) as client:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return client.ask("POST", path, {"model": model}, headers=headers)


def taken(settings: GatewaySettings, model: str, token: str | None = None) -> int:
    """How many requests are taken until the first is refused."""
    return next(n for n in range(100) if ask(settings, model, token).status == 429)


def test_each_token_has_its_own_count_for_each_model(
    gateway: Gateway, settings: GatewaySettings, table: RouteTable, tmp_path: Path
) -> None:
    office = Office(tmp_path)
    one, other = office.token(), office.token()
    some = {"digits": RateLimit(burst=3, **HOURLY), "*": RateLimit(burst=2, **HOURLY)}
    gateway.apply(replace(table, access=office.rules, limits=some))
    assert (taken(settings, "digits", one), taken(settings, "digits:production", one)) == (3, 0)
    assert (taken(settings, "faces", one), taken(settings, "digits", other)) == (2, 3)

    refused, oip = ask(settings, "digits", one), ask(settings, "", one, "/v2/models/digits/infer")
    assert refused.error()["code"] == "rate_limit_exceeded"
    assert (refused.headers["retry-after"], oip.status) == ("60", 429)
    assert isinstance(oip.json()["error"], str)


def test_counts_outlive_routes_keys_and_other_limits(
    gateway: Gateway, settings: GatewaySettings, table: RouteTable, tmp_path: Path
) -> None:
    office = Office(tmp_path)
    token, other = office.token(), office.made()
    digits = RateLimit(burst=3, **HOURLY)
    gateway.apply(replace(table, access=office.rules, limits={"digits": digits}))
    assert taken(settings, "digits", token) == 3

    gateway.apply(replace(table, routes=table.routes[:1], access=office.rules, limits={"digits": digits}))
    assert ask(settings, "digits", token).status == 429
    gateway.apply(replace(table, access=office.rules, limits={"digits": digits, "faces": RateLimit(burst=5, **HOURLY)}))
    assert ask(settings, "digits", token).status == 429
    office.journal.rotate()
    office.journal.revoke(other[1])
    gateway.apply(replace(table, access=office.rules, limits={"digits": digits}))
    assert ask(settings, "digits", token).status == 429
    gateway.apply(replace(table, access=office.rules))
    assert ask(settings, "digits", token).status == 200


def test_without_tokens_addresses_are_counted(gateway: Gateway, settings: GatewaySettings, table: RouteTable) -> None:
    gateway.apply(replace(table, access=Rules(), limits={"*": RateLimit(burst=2, **HOURLY)}))
    assert (taken(settings, "digits"), taken(settings, "faces")) == (2, 2)


def test_a_minutes_worth_is_taken_at_once_unless_said_otherwise(
    gateway: Gateway, settings: GatewaySettings, table: RouteTable
) -> None:
    gateway.apply(replace(table, limits={"digits": RateLimit(requests_per_minute=7)}))
    assert 7 <= taken(settings, "digits") <= 8  # and what came back meanwhile


@given(st.integers(1, 100_000), st.integers(1, 100_000))
def test_a_burst_is_what_was_asked_for_or_a_little_more(per_minute: int, burst: int) -> None:
    asked = min(max(burst, per_minute / 4096), 8 * per_minute)
    limit = RateLimit(requests_per_minute=per_minute, burst=burst)
    said = limits.on_route({"m": limit}, ("m:v1.0.0",), by_token=True)["filter_metadata"][limits.LIMITS]
    buckets = limits.limit_filter()["typed_config"]["descriptors"]
    bucket = next(b["token_bucket"] for b in buckets if b["entries"][0]["value"] == said["size"])
    assert int(asked) <= bucket["max_tokens"] // said["cost"] <= asked * 1.1 + 1
    assert bucket["tokens_per_fill"] / said["cost"] == pytest.approx(per_minute, rel=0.01)
