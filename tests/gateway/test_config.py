"""Envoy's documents as values; what Envoy makes of them is tested in test_requests.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelyard.gateway import Endpoint, Route, RouteTable, config, replies, telemetry
from modelyard.settings import GatewaySettings

from .upstreams import backend

SETTINGS = GatewaySettings()
DIGIT = backend("digit", Endpoint("127.0.0.1", 9001), Endpoint("127.0.0.1", 9002, draining=True))


def table(*names: str) -> RouteTable:
    return RouteTable((DIGIT,), (Route(names, ((DIGIT.cluster, 1),)),))


def test_versions_follow_the_content() -> None:
    assert config.rds(table("a"), SETTINGS) == config.rds(table("a"), SETTINGS)
    versions = {config.rds(table(name), SETTINGS)["version_info"] for name in ("a", "b")}
    assert len(versions) == 2


def test_routes_do_not_depend_on_replicas() -> None:
    other = RouteTable((backend("digit"),), table("a").routes)
    assert config.rds(other, SETTINGS) == config.rds(table("a"), SETTINGS)


def test_the_bootstrap_changes_with_each_setting(tmp_path: Path) -> None:
    changes: list[dict[str, object]] = [{}, {"port": 7171}, {"workers": 3}, {"body_limit": 4096}]
    changes += [{"token_metrics": False}, {"access_log": tmp_path}, {"otlp_endpoint": "http://localhost:4318"}]
    made = [str(config.bootstrap(tmp_path, "127.0.0.1", SETTINGS.model_copy(update=change))) for change in changes]
    assert len({*made, str(config.bootstrap(tmp_path, "::1", SETTINGS))}) == 8


@pytest.mark.parametrize(
    ("endpoint", "uri", "port"),
    [
        ("http://collector:4318", "http://collector:4318/v1/traces", 4318),
        ("http://collector/", "http://collector/v1/traces", 80),
        ("http://collector:4318/own/path", "http://collector:4318/own/path", 4318),
    ],
)
def test_the_receiver_of_traces(endpoint: str, uri: str, port: int, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"otlp_endpoint": endpoint})
    static = config.bootstrap(tmp_path, "127.0.0.1", settings)["static_resources"]
    (cluster,) = (cluster for cluster in static["clusters"] if cluster["name"] == telemetry.TRACES_CLUSTER)
    assert f'"uri": "{uri}"' in json.dumps(static["listeners"])
    assert f'"address": "collector", "port_value": {port}' in json.dumps(cluster)


def test_clusters_do_not_depend_on_order(tmp_path: Path) -> None:
    made = config.clusters(RouteTable((DIGIT, backend("letter"))), tmp_path, "")
    assert config.cds(made) == config.cds(dict(reversed(made.items())))


def test_draining_replicas_are_told_apart() -> None:
    (assignment,) = config.eds(DIGIT)["resources"]
    hosts = assignment["endpoints"][0]["lb_endpoints"]
    assert [host["health_status"] for host in hosts] == ["HEALTHY", "DRAINING"]


def test_the_list_of_what_is_served_is_bounded() -> None:
    names = [f"m{n:02}" for n in range(25)]
    assert replies.served([]) == "nothing is served yet"
    assert replies.served(names[:20]).endswith("m18, m19")
    assert replies.served(names).endswith("m18, m19 and 5 more; see /v1/models")
    assert replies.served(["m", "m:staging", "m:v1.0.0"]) == "served: m and 2 more; see /v1/models"
    assert replies.served(["m:staging"]) == "served: m:staging"
