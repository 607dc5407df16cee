"""Tokens of an OpenID Connect issuer at a real Envoy, which fetches the issuer's keys by itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from access.issuer import IssuerServer, issuing
from access.support import Office
from modelyard.access import Rules
from modelyard.configuration.sections import RateLimit
from modelyard.gateway import Gateway, Route, RouteTable
from modelyard.settings import GatewaySettings

from .upstreams import Client, Upstream, backend, wait_for

Ask = Callable[[str], int]


@pytest.fixture
def issuer() -> Iterator[IssuerServer]:
    with issuing() as server:
        yield server


def test_the_issuers_tokens(
    tmp_path: Path, settings: GatewaySettings, issuer: IssuerServer, upstream: Callable[[str], Upstream]
) -> None:
    office, one = Office(tmp_path), backend("digits", upstream("server").endpoint())
    rules = Rules(office.rules.keys, issuer=issuer.issuer)
    routes = (Route(("digits",), ((one.id, 1),)),)
    gateway = Gateway(tmp_path / "gateway", settings, issuer=issuer.issuer)
    gateway.start()

    def ask(token: str) -> int:
        with Client(settings.port) as client:
            return client.ask(
                "POST", "/v2/models/digits/infer", {}, headers={"authorization": f"Bearer {token}"}
            ).status

    try:
        gateway.apply(RouteTable((one,), routes, rules))
        wait_for(lambda: ask(issuer.token(["staff"])) == 200)
        assert ask(office.token()) == 200  # our own are good as well
        assert ask(issuer.token("ml", "digits")) == 200
        for roles, models in (([], ("*",)), (["guests"], ("*",)), (["staff"], ("faces",)), (["staff"], None)):
            assert ask(issuer.token(roles, models)) == 403
        stranger = rsa.generate_private_key(65537, 2048)
        for bad in ({"key": stranger}, {"aud": "else"}, {"iss": "else"}, {"exp": int(time.time()) - 60}):
            assert ask(issuer.token(["staff"], **bad)) == 401

        limited = RouteTable((one,), routes, rules, {"*": RateLimit(requests_per_minute=1, burst=2)})
        gateway.apply(limited)
        assert [ask(issuer.token(["staff"])) for _ in range(3)] == [200, 200, 429]
        gateway.apply(RouteTable((one,), routes, Rules(issuer=issuer.issuer)))
        assert (ask(issuer.token(["ml"])), ask(office.token())) == (200, 401)
    finally:
        gateway.stop(drain_s=0)
