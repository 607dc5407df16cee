from __future__ import annotations

from modelyard.deployment.routing import route_table
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
    table = route_table({"production": {"digit": serving(V1)}}, [replica("a", V1)], frozenset("a"))
    alone = {"v1.1.0": 1}
    assert names(table) == {"digit": alone, "digit:production": alone, "digit:v1.1.0": alone}
    assert table.backends[0].label == f"digit:v1.1.0@{V1.digest}"


def test_replicas_share_by_number_and_draining_ones_get_nothing() -> None:
    replicas = [replica("a", V1), replica("b", V1), replica("c", V2), replica("d", V2, "starting")]
    table = route_table({"production": {"digit": serving(V1, V2, replicas=2)}}, replicas, frozenset("bc"))
    assert names(table)["digit"] == {"v1.1.0": 1, "v1.2.0": 1}
    old, new = table.backends
    assert sorted((e.port, e.draining) for e in old.endpoints) == sorted(
        [(replicas[0].port, True), (replicas[1].port, False)]
    )
    assert [e.port for e in new.endpoints] == [replicas[2].port]


def test_nobody_ready_leads_to_what_serves_so_that_the_answer_is_503() -> None:
    table = route_table({"production": {"digit": serving(V1, V2)}}, [], frozenset())
    assert names(table)["digit"] == {"v1.1.0": 1}
    assert not any(backend.endpoints for backend in table.backends)


def test_staging_has_its_own_name_and_production_is_preferred_for_a_version() -> None:
    staged = replica("s", V1)
    deployments = {"staging": {"digit": serving(V1)}, "production": {"digit": serving(V1)}}
    in_staging = type(staged)(**{f: getattr(staged, f) for f in staged.__slots__} | {"environment": "staging"})

    table = route_table(deployments, [in_staging, replica("p", V1)], frozenset("sp"))
    [by_version] = [route for route in table.routes if route.names == ("digit:v1.1.0",)]
    assert table.backend(by_version.weights[0][0]).environment == "production"
    assert names(table).keys() == {"digit", "digit:production", "digit:staging", "digit:v1.1.0"}

    table = route_table(deployments, [in_staging], frozenset("s"))  # production has none that is ready
    [by_version] = [route for route in table.routes if route.names == ("digit:v1.1.0",)]
    assert table.backend(by_version.weights[0][0]).environment == "staging"


def test_what_is_not_deployed_has_no_name() -> None:
    gone = Deployment(earlier=(V1,), outcome="done")
    assert route_table({"production": {"digit": gone}}, [], frozenset()) == RouteTable()


def test_versions_in_an_engine_that_runs_on_its_own() -> None:
    """Its replicas have one address, which drains when the last of them does; it has its own name for a version."""
    there = {"host": "10.0.0.7", "port": 11434, "internal_name": "modelyard/digit:1"}
    replicas = [replica("a", V1, **there), replica("b", V1, **there)]
    deployments = {"production": {"digit": serving(V1, replicas=2)}}
    for routed, draining in (("ab", False), ("b", False), ("", True)):
        (backend,) = route_table(deployments, replicas, frozenset(routed)).backends
        assert backend.endpoints == (Endpoint("10.0.0.7", 11434, draining),)
        assert backend.internal_name == "modelyard/digit:1"


def test_a_share_of_its_own_is_the_last_part_of_an_unchanging_sum() -> None:
    """So the keys that lead to the new version are among those that lead to it with any larger share."""
    replicas = [replica("a", V1), replica("b", V1), replica("c", V2)]
    deployments, routed = {"production": {"digit": serving(V1, V2, replicas=2)}}, frozenset("abc")
    for share in (5, 25, 80):
        table = route_table(deployments, replicas, routed, shares={("production", "digit"): share})
        assert list(names(table)["digit"].items()) == [("v1.1.0", 10_000 - 100 * share), ("v1.2.0", 100 * share)]
        assert names(table)["digit:v1.2.0"] == {"v1.2.0": 1}


def test_without_a_share_a_version_is_reached_by_its_own_name() -> None:
    replicas = [replica("a", V1), replica("c", V2)]
    deployments = {"production": {"digit": serving(V1, V2)}}
    table = route_table(deployments, replicas, frozenset("ac"), shares={("production", "digit"): 0})
    assert names(table)["digit"] == {"v1.1.0": 10_000}
    assert names(table)["digit:v1.2.0"] == {"v1.2.0": 1}
    assert all(backend.ready for backend in table.backends)


def test_several_old_versions_share_what_is_left() -> None:
    replicas = [replica("a", V1), replica("b", V1), replica("d", V3), replica("c", V2)]
    deployments = {"production": {"digit": serving(V1, V2, replicas=3)}}
    table = route_table(deployments, replicas, frozenset("abcd"), shares={("production", "digit"): 10})
    found = names(table)["digit"]
    assert sum(found.values()) == 10_000
    assert found == {"v1.1.0": 6000, "v1.3.0": 3000, "v1.2.0": 1000}


def test_a_share_without_anybody_to_share_with_is_none() -> None:
    deployments = {"production": {"digit": serving(V1, V2)}}
    for there in ([replica("a", V1)], [replica("c", V2)], []):
        routed = frozenset(r.id for r in there)
        table = route_table(deployments, there, routed, shares={("production", "digit"): 10})
        assert list(names(table)["digit"].values()) == [1]
