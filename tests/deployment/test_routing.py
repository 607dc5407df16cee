from __future__ import annotations

from dataclasses import replace

import pytest

from modelyard.deployment.routing import Traffic, route_table
from modelyard.gateway.routes import Endpoint, RouteTable
from modelyard.repository import Deployment

from .builders import V1, V2, V3, replica, serving


def names(table: RouteTable) -> dict[str, dict[str, int]]:
    """Name → the versions (as environment and label's version) it leads to, with their weights."""
    found = {}
    for route in table.routes:
        for name in route.names:
            backends = {cluster: table.backend(cluster) for cluster, _ in route.weights}
            found[name] = {_version(backends[cluster].label): weight for cluster, weight in route.weights}
    return found


def _version(label: str) -> str:
    return label.partition("@")[0].partition(":")[2]


def test_every_name_of_what_serves() -> None:
    table = route_table({"production": {"digit": serving(V1)}}, [replica("a", V1)], Traffic(frozenset("a")))
    alone = {"v1.1.0": 1}
    assert names(table) == {"digit": alone, "digit:production": alone, "digit:v1.1.0": alone}
    assert table.backends[0].label == f"digit:v1.1.0@{V1.digest}"


def test_replicas_share_by_number_and_draining_ones_get_nothing() -> None:
    replicas = [replica("a", V1), replica("b", V1), replica("c", V2), replica("d", V2, "starting")]
    table = route_table({"production": {"digit": serving(V1, V2, replicas=2)}}, replicas, Traffic(frozenset("bc")))
    assert names(table)["digit"] == {"v1.1.0": 1, "v1.2.0": 1}
    old, new = table.backends
    assert sorted((e.port, e.draining) for e in old.endpoints) == sorted(
        [(replicas[0].port, True), (replicas[1].port, False)]
    )
    assert [e.port for e in new.endpoints] == [replicas[2].port]


def test_nobody_ready_leads_to_what_serves_so_that_the_answer_is_503() -> None:
    table = route_table({"production": {"digit": serving(V1, V2)}}, [], Traffic(frozenset()))
    assert names(table)["digit"] == {"v1.1.0": 1, "v1.2.0": 0}
    assert not any(backend.endpoints for backend in table.backends)


def test_staging_has_its_own_name_and_production_is_preferred_for_a_version() -> None:
    staged = replica("s", V1)
    deployments = {"staging": {"digit": serving(V1)}, "production": {"digit": serving(V1)}}
    in_staging = type(staged)(**{f: getattr(staged, f) for f in staged.__slots__} | {"environment": "staging"})

    table = route_table(deployments, [in_staging, replica("p", V1)], Traffic(frozenset("sp")))
    [by_version] = [route for route in table.routes if route.names == ("digit:v1.1.0",)]
    assert table.backend(by_version.weights[0][0]).environment == "production"
    assert names(table).keys() == {"digit", "digit:production", "digit:staging", "digit:v1.1.0"}

    table = route_table(deployments, [in_staging], Traffic(frozenset("s")))  # production has none that is ready
    [by_version] = [route for route in table.routes if route.names == ("digit:v1.1.0",)]
    assert table.backend(by_version.weights[0][0]).environment == "staging"


def test_what_is_not_deployed_has_no_name() -> None:
    gone = Deployment(earlier=(V1,), outcome="done")
    assert route_table({"production": {"digit": gone}}, [], Traffic(frozenset())) == RouteTable()


def test_versions_in_an_engine_that_runs_on_its_own() -> None:
    """Its replicas have one address, which drains when the last of them does; it has its own name for a version."""
    there = {"host": "10.0.0.7", "port": 11434, "internal_name": "modelyard/digit:1"}
    replicas = [replica("a", V1, **there), replica("b", V1, **there)]
    deployments = {"production": {"digit": serving(V1, replicas=2)}}
    for routed, draining in (("ab", False), ("b", False), ("", True)):
        (backend,) = route_table(deployments, replicas, Traffic(frozenset(routed))).backends
        assert backend.endpoints == (Endpoint("10.0.0.7", 11434, draining),)
        assert backend.internal_name == "modelyard/digit:1"


def test_a_share_of_its_own_is_the_last_part_of_an_unchanging_sum() -> None:
    """So the keys that lead to the new version are among those that lead to it with any larger share."""
    replicas = [replica("a", V1), replica("b", V1), replica("c", V2)]
    deployments, routed = {"production": {"digit": serving(V1, V2, replicas=2)}}, frozenset("abc")
    for share in (5, 25, 80):
        table = route_table(deployments, replicas, Traffic(routed, shares={("production", "digit"): share}))
        assert list(names(table)["digit"].items()) == [("v1.1.0", 10_000 - 100 * share), ("v1.2.0", 100 * share)]
        assert names(table)["digit:v1.2.0"] == {"v1.2.0": 1}


def test_without_a_share_a_version_is_reached_by_its_own_name() -> None:
    replicas = [replica("a", V1), replica("c", V2)]
    deployments = {"production": {"digit": serving(V1, V2)}}
    table = route_table(deployments, replicas, Traffic(frozenset("ac"), shares={("production", "digit"): 0}))
    assert names(table)["digit"] == {"v1.1.0": 10_000, "v1.2.0": 0}
    assert names(table)["digit:v1.2.0"] == {"v1.2.0": 1}
    assert all(backend.ready for backend in table.backends)


def test_several_old_versions_share_what_is_left() -> None:
    replicas = [replica("a", V1), replica("b", V1), replica("d", V3), replica("c", V2)]
    deployments = {"production": {"digit": serving(V1, V2, replicas=3)}}
    table = route_table(deployments, replicas, Traffic(frozenset("abcd"), shares={("production", "digit"): 10}))
    found = names(table)["digit"]
    assert sum(found.values()) == 10_000
    assert found == {"v1.1.0": 6000, "v1.3.0": 3000, "v1.2.0": 1000}


def test_a_share_without_anybody_to_share_with_is_none() -> None:
    deployments = {"production": {"digit": serving(V1, V2)}}
    for there in ([replica("a", V1)], [replica("c", V2)], []):
        routed = frozenset(r.id for r in there)
        table = route_table(deployments, there, Traffic(routed, shares={("production", "digit"): 10}))
        assert list(names(table)["digit"].values()) == [1, 0]


def test_what_the_new_version_can_not_take_the_old_one_does() -> None:
    """While it is in traffic or stands by; under the names of the deployment alone."""
    there = [replica("a", V1), replica("c", V2)]
    under_way, done = serving(V1, V2), replace(serving(V2), replaced=V1)
    for deployment, traffic in (
        (under_way, Traffic(frozenset("a"), standby=frozenset("c"))),
        (under_way, Traffic(frozenset("ac"))),
        (under_way, Traffic(frozenset("c"), standby=frozenset("a"))),
        (done, Traffic(frozenset("c"), standby=frozenset("a"))),
    ):
        table = route_table({"production": {"digit": deployment}}, there, traffic)
        fallbacks = {route.names: route.fallback for route in table.routes if route.fallback}
        assert fallbacks == {("digit", "digit:production"): ("digit:v1.1.0",)}
        assert all(backend.ready for backend in table.backends)
        assert names(table)["digit"] == {"v1.1.0": "a" in traffic.routed, "v1.2.0": "c" in traffic.routed}


@pytest.mark.parametrize(
    ("deployment", "routed"),
    [(serving(V1), "a"), (serving(V2), "c")],
    ids=["went back", "left"],
)
def test_who_only_ends_what_it_has_takes_nothing(deployment: Deployment, routed: str) -> None:
    there = [replica("a", V1), replica("c", V2)]
    table = route_table({"production": {"digit": deployment}}, there, Traffic(frozenset(routed)))
    assert [route.fallback for route in table.routes] == [()] * len(table.routes)
