"""The rows of `modelyard status`: replicas of the wanted version are counted, those of the one before are named."""

from __future__ import annotations

from dataclasses import replace

from modelyard.deployment.plan import Replica
from modelyard.deployment.status import Seen, Status, rows
from modelyard.repository import Analysis, CanaryStep, Deployment, DeploymentSpec, Strategy

from .builders import V1, V2, replica

BOTH = [replica(name, version) for name, version in (("a", V1), ("b", V1), ("c", V2), ("d", V2))]
DAY = 1_796_083_200.0  # 2026-12-01T00:00:00Z


def asked(strategy: Strategy) -> Deployment:
    before = Deployment().ask(V1, spec=DeploymentSpec(2)).finished()
    return before.ask(V2, spec=DeploymentSpec(2, strategy=strategy))


def row(deployment: Deployment, replicas: list[Replica], *, at: float = DAY) -> Status:
    [found] = rows("production", {"digit": deployment}, Seen(replicas, (), {}, at))
    return found


def kept(found: Status) -> tuple[str | None, str | None, str]:
    return found.kept, found.kept_until, found.reason


def test_ready_are_those_of_the_wanted_version() -> None:
    rolling = asked(Strategy())
    assert [row(rolling, BOTH[:count]).ready for count in (2, 3, 4)] == [0, 1, 2]
    assert row(rolling.failed("it is slow"), BOTH[:3]).ready == 2
    starting = [replace(each, state="starting") for each in BOTH]
    assert (row(rolling, starting).ready, row(rolling, starting).wanted) == (0, 2)


def test_what_is_kept_warm_is_named_as_long_as_it_is_there() -> None:
    done = asked(Strategy(keep_warm_s=60)).finished(DAY)
    found = row(done, BOTH, at=DAY + 18)
    assert (found.ready, found.wanted) == (2, 2)
    assert kept(found) == ("v1.1.0", "2026-12-01T00:01:00+00:00", "v1.1.0 is kept warm for 42 s more")
    assert kept(row(done, BOTH, at=DAY + 60)) == (None, None, "")
    assert kept(row(done, BOTH[2:], at=DAY + 18)) == (None, None, "")


def test_one_is_kept_warm_while_the_new_one_is_watched() -> None:
    watched = asked(Strategy(analysis=Analysis(), keep_warm_s=60))
    assert kept(row(watched, BOTH[:3])) == (None, None, "v1.2.0 takes over")
    assert kept(row(watched.reached(DAY), BOTH)) == ("v1.1.0", None, "v1.2.0 is watched; v1.1.0 is kept warm")


def test_what_shares_the_requests_is_not_kept_but_needed() -> None:
    canary = asked(Strategy("canary", steps=(CanaryStep(50, 60),), keep_warm_s=60)).reached(DAY)
    assert kept(row(canary, BOTH)) == (None, None, "step 1 of 1: v1.2.0 gets 50 % of the requests")


def test_what_is_undeployed_has_no_row() -> None:
    gone = asked(Strategy()).finished().ask(None)
    assert row(gone, BOTH).target is None
    assert list(rows("production", {"digit": gone.finished()}, Seen(BOTH, (), {}, DAY))) == []


def test_what_is_wrong_with_replicas_is_said_after_it() -> None:
    crashed = replica("e", V2, "exited", error="no memory")
    seen = Seen([*BOTH, crashed], (), {("production", "digit"): "a node is lost"}, DAY)
    [found] = rows("production", {"digit": asked(Strategy()).finished()}, seen)
    assert found.reason.startswith("v1.2.0 crashed once in 5 min: no memory")
    assert found.reason.endswith("; a node is lost")
