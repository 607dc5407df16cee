"""What everything depends on is away for a while, under load: no request fails, and what was under way goes on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from faults.proxy import FaultyProxy
from modelyard.deployment.targets.kubernetes.lease import DURATION_S

from .control_plane import NODE_GRACE_S, ControlPlane
from .kubelet import wait_for
from .running import answers
from .site import NEW, OLD, Site

pytestmark = [pytest.mark.kubernetes, pytest.mark.long]
EXPIRED = 50 * (max(DURATION_S, NODE_GRACE_S) + 1)  # requests, at 50 a second: neither lease nor nodes are valid then
CUT_OFF = ("ConnectError", "ReadError", "RemoteProtocolError", "WriteError")


@pytest.fixture
def proxy(s3_server: str) -> Iterator[FaultyProxy]:
    with FaultyProxy(s3_server) as opened:
        yield opened


@pytest.fixture
def cluster_variables(cluster_variables: None, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bucket is behind the proxy."""
    monkeypatch.setenv("MODELYARD_S3_ENDPOINT_URL", proxy.url)


def test_the_api_server_is_away_for_a_while(site: Site, plane: ControlPlane) -> None:
    """The second time for so long that the controller's lease has expired and every node counts as lost."""
    site.begin()
    with site.load() as load:
        with plane.away():
            load.goes_on(100)
        site.promote(NEW, wait=False)
        wait_for(lambda: site.pods(NEW), what=site.log)
        with plane.away():
            load.goes_on(EXPIRED, timeout_s=150)
            assert site.now().outcome == "running"
        site.wait_until_done()
        wait_for(lambda: load.answered[f"classifier:{NEW}"] > 50)
    assert load.failed == []
    assert str(site.now().serving) == NEW
    assert "HTTP Request" not in site.log()  # every one of them would be noise


def test_the_store_is_away_for_a_while(site: Site, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than anybody's patience: the new pod gives up several times."""
    monkeypatch.setenv("MODELYARD_STORAGE__RETRIES", "1")
    site.begin()
    with site.load() as load:
        site.promote(NEW, wait=False)
        wait_for(lambda: site.pods(NEW), what=site.log)
        proxy.decide = lambda _: "reset"
        wait_for(lambda: restarts(site) > 1, what=site.log)
        load.goes_on()
        proxy.decide = lambda _: None
        site.wait_until_done()
        wait_for(lambda: load.answered[f"classifier:{NEW}"] > 50)
    assert load.failed == []
    assert str(site.now().serving) == NEW


def restarts(site: Site) -> int:
    """How often the new pod has begun anew to get its files."""
    statuses = (pod.status and pod.status.initContainerStatuses for pod in site.pods(NEW))
    return sum(each.restartCount for own in statuses for each in own or [])


def test_whoever_leads_is_killed_and_started_again(site: Site) -> None:
    site.begin()
    with site.load() as load:
        envoy = site.envoy()
        site.kill("gateway")
        load.goes_on()
        site.start("gateway")
        site.promote(NEW, wait=False)
        wait_for(lambda: site.pods(NEW), what=site.log)
        site.kill("controller")
        load.goes_on()
        assert site.now().outcome == "running"
        site.start("controller")
        site.wait_until_done()
        wait_for(lambda: load.answered[f"classifier:{NEW}"] > 50)
    assert load.failed == []
    assert envoy is not None
    assert site.envoy() == envoy  # who was started again took it over


def test_envoy_is_killed(site: Site) -> None:
    site.begin()
    with site.load() as load:
        first = site.envoy()
        assert first is not None
        first.kill()
        wait_for(lambda: site.envoy() not in (None, first) and answers(f"{site.gateway}/readyz"), what=site.log)
        load.goes_on()
        failed = len(load.failed)
        load.goes_on()
    assert len(load.failed) == failed
    assert all(failure.startswith(CUT_OFF) for failure in load.failed), load.failed
    assert set(load.answered) == {f"classifier:{OLD}"}
