"""The route table as a value."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from modelyard.errors import InvalidInput
from modelyard.gateway import Endpoint, Route, RouteTable

from .upstreams import backend

ONE, TWO = Endpoint("127.0.0.1", 9001), Endpoint("127.0.0.1", 9002)
DIGIT = backend("digit", ONE)
NEXT = backend("digit", TWO, version="v1.1.0")


def test_a_cluster_name_is_safe_short_and_unique() -> None:
    backends = [
        backend("ns/Digit.x_y-z"),
        backend("ns-Digit.x_y-z"),
        backend("ns/digit.x_y-z"),
        backend("ns/Digit.x_y-z", version="v1.1.0"),
        backend("ns/Digit.x_y-z", environment="staging"),
        backend("n" * 96),
    ]
    clusters = [one.cluster for one in backends]
    assert len(set(clusters)) == len(backends)
    assert all(re.fullmatch(r"[a-z0-9-]{1,61}", cluster) for cluster in clusters)
    assert clusters[0].startswith("production-ns-digit-x-y-z-")


def test_a_cluster_name_does_not_depend_on_the_replicas() -> None:
    assert backend("digit", ONE).cluster == backend("digit", TWO).cluster


def test_versions_in_a_pool_share_a_cluster() -> None:
    one, two = replace(DIGIT, pool="rare"), replace(NEXT, pool="rare", endpoints=DIGIT.endpoints)
    table = RouteTable((one, two), (Route(("digit",), ((one.id, 1), (two.id, 1))),))
    assert table.clusters.keys() == {one.cluster} == {two.cluster}
    assert len({one.id, two.id, one.cluster, DIGIT.id}) == 4


def test_names_are_sorted() -> None:
    table = RouteTable((DIGIT,), (Route(("z", "a"), ((DIGIT.cluster, 1),)), Route(("m",), ((DIGIT.cluster, 1),))))
    assert table.names == ("a", "m", "z")


@pytest.mark.parametrize(
    ("backends", "routes", "why"),
    [
        ((), (Route(("digit",), (("nowhere", 1),)),), "no backend"),
        ((DIGIT, DIGIT), (), "twice"),
        ((DIGIT,), (Route(("digit", "digit"), ((DIGIT.cluster, 1),)),), "twice"),
        ((DIGIT,), (Route((), ((DIGIT.cluster, 1),)),), "no name"),
        ((DIGIT,), (Route(("digit",), ()),), "weights"),
        ((DIGIT,), (Route(("digit",), ((DIGIT.cluster, 0),)),), "weights"),
        ((DIGIT, NEXT), (Route(("digit",), ((DIGIT.cluster, 2), (NEXT.cluster, -1))),), "weights"),
        ((backend("digit", ONE, Endpoint(ONE.host, ONE.port, True)),), (), "endpoint twice"),
        (
            (DIGIT, backend("other")),
            (Route(("digit",), ((DIGIT.cluster, 1), (backend("other").cluster, 1))),),
            "mixes models",
        ),
        ((replace(DIGIT, pool="rare"), replace(NEXT, pool="rare")), (), "other endpoints"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(
    backends: tuple[object, ...], routes: tuple[Route, ...], why: str
) -> None:
    with pytest.raises(InvalidInput, match=why):
        RouteTable(backends, routes)  # type: ignore[arg-type]


@pytest.mark.parametrize(("host", "port"), [("localhost", 80), ("0::1", 80), ("127.0.0.1", 0), ("127.0.0.1", 65536)])
def test_an_endpoint_is_an_ip_address_and_a_port(host: str, port: int) -> None:
    with pytest.raises(InvalidInput):
        Endpoint(host, port)


def test_widened_takes_nothing_away() -> None:
    draining = Endpoint(ONE.host, ONE.port, True)
    assert backend("digit", TWO).widened([ONE]).endpoints == (ONE, TWO)
    assert backend("digit", draining, TWO).widened([ONE]).endpoints == (ONE, TWO)
    assert backend("digit", ONE).widened([draining]).endpoints == (ONE,)
    assert backend("digit", draining).widened([]).endpoints == (draining,)
