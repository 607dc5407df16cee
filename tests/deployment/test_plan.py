from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from modelyard.deployment.plan import CRASH_MEMORY_S, Fail, Finish, GiveUp, Limits, Plan, Replica, Start, Stop, backoff
from modelyard.deployment.plan import plan as decide
from modelyard.repository import Deployment, DeploymentSpec

from .builders import V1, V2, V3, replica, serving

LIMITS = Limits(ready_s=120, drain_s=60)
UNDEPLOY = Deployment(serving=V1, target=None, rollout="now", outcome="running")
AGAIN = Deployment(serving=V1, target=V1, rollout="now", outcome="running")


def crashed(name: str, version: object = V2, since_s: float = 1.0, rollout: str = "now", error: str = "") -> Replica:
    return replica(name, version, "exited", since_s=since_s, rollout=rollout, error=error)  # type: ignore[arg-type]


CASES: dict[str, tuple[Deployment, Sequence[Replica], Plan]] = {
    "nothing is wanted, nothing is there": (Deployment(), [], Plan(frozenset(), ())),
    "a first version is started": (serving(None, V1, replicas=2), [], Plan(frozenset(), (Start(V1), Start(V1)))),
    "a first version gets traffic when it is ready": (
        serving(None, V1),
        [replica("a", V1, unrouted_s=1)],
        Plan(frozenset("a"), ()),
    ),
    "it serves when the gateway has confirmed that": (
        serving(None, V1),
        [replica("a", V1)],
        Plan(frozenset("a"), (Finish(),)),
    ),
    "the new one is started beside the old one": (
        serving(V1, V2),
        [replica("a", V1)],
        Plan(frozenset("a"), (Start(V2),)),
    ),
    "the old one serves while the new one starts": (
        serving(V1, V2),
        [replica("a", V1), replica("b", V2, "starting")],
        Plan(frozenset("a"), ()),
    ),
    "the new one takes the traffic when it is ready": (
        serving(V1, V2),
        [replica("a", V1), replica("b", V2, unrouted_s=0)],
        Plan(frozenset("b"), ()),
    ),
    "the old one is stopped when it is out of traffic and has nothing in hand": (
        serving(V1, V2),
        [replica("a", V1, unrouted_s=0.0), replica("b", V2)],
        Plan(frozenset("b"), (Stop("a"), Finish())),
    ),
    "a rollout is not done before the gateway has confirmed that the old one is out": (
        serving(V1, V2),
        [replica("a", V1), replica("b", V2)],
        Plan(frozenset("b"), ()),
    ),
    "a rollout is done while an old one finishes what it has": (
        serving(V1, V2),
        [replica("a", V1, unrouted_s=59.0, in_flight=2), replica("b", V2)],
        Plan(frozenset("b"), (Finish(),)),
    ),
    "what takes too long to finish is cut": (
        serving(V2),
        [replica("a", V1, unrouted_s=61.0, in_flight=2), replica("b", V2)],
        Plan(frozenset("b"), (Stop("a"),)),
    ),
    "no more than the surge is started at once": (
        serving(V1, V2, replicas=3, surge=2),
        [replica("a", V1), replica("b", V1), replica("c", V1)],
        Plan(frozenset("abc"), (Start(V2), Start(V2))),
    ),
    "each new one replaces an old one": (
        serving(V1, V2, replicas=2),
        [replica("a", V1, since_s=9), replica("b", V1, since_s=8), replica("c", V2, unrouted_s=0)],
        Plan(frozenset("ac"), ()),
    ),
    "stopping ones need no room": (
        serving(V1, V2, replicas=2),
        [replica("a", V1), replica("b", V1, "stopping"), replica("c", V2)],
        Plan(frozenset("ac"), (Start(V2),)),
    ),
    "one crash may be bad luck": (
        serving(V1, V2),
        [replica("a", V1), crashed("b")],
        Plan(frozenset("a"), (Start(V2),)),
    ),
    "two crashes are the version's fault": (
        serving(V1, V2),
        [replica("a", V1), crashed("b", since_s=3, error="early"), crashed("c", since_s=1, error="no memory")],
        Plan(frozenset("a"), (Fail("v1.2.0 does not stay up: no memory"),)),
    ),
    "for want of the store any number of them is not": (
        serving(V1, V2),
        [replica("a", V1), *(replace(crashed(name, since_s=40), blameless=True) for name in "bcde")],
        Plan(frozenset("a"), (Start(V2),)),
    ),
    "a process that said nothing failed too": (
        serving(V1, V2),
        [crashed("b"), crashed("c")],
        Plan(frozenset(), (Fail("v1.2.0 does not stay up: its process ended without a word"),)),
    ),
    "crashes of a rollout are remembered however slow they are": (
        serving(V1, V2),
        [replica("a", V1), crashed("b", since_s=2 * CRASH_MEMORY_S), crashed("c", error="too big")],
        Plan(frozenset("a"), (Fail("v1.2.0 does not stay up: too big"),)),
    ),
    "crashes of an earlier rollout do not count, but delay": (
        serving(V1, V2),
        [replica("a", V1), crashed("b", rollout="before", since_s=0.4), crashed("c", rollout="before", since_s=0.3)],
        Plan(frozenset("a"), ()),
    ),
    "one that does not get ready is given up": (
        serving(V1, V2),
        [replica("a", V1), replica("b", V2, "starting", since_s=121)],
        Plan(frozenset("a"), (GiveUp("b"),)),
    ),
    "a crashed one of what serves is replaced at once": (
        serving(V1, replicas=2),
        [replica("a", V1), crashed("b", V1)],
        Plan(frozenset("a"), (Start(V1),)),
    ),
    "one that crashes again has to wait": (
        serving(V1),
        [crashed("a", V1, since_s=0.9), crashed("b", V1, since_s=0.4)],
        Plan(frozenset(), ()),
    ),
    "until it has waited long enough": (
        serving(V1),
        [crashed("a", V1, since_s=0.9), crashed("b", V1, since_s=0.6)],
        Plan(frozenset(), (Start(V1),)),
    ),
    "old crashes are forgotten": (
        serving(V1),
        [replica("a", V1), crashed("b", V1, since_s=CRASH_MEMORY_S + 1)],
        Plan(frozenset("a"), (Stop("b"),)),
    ),
    "crashes of what nobody wants any more are forgotten": (
        serving(V1),
        [replica("a", V1), crashed("b", V2)],
        Plan(frozenset("a"), (Stop("b"),)),
    ),
    "what serves is replaced when it crashes while the new one starts": (
        serving(V1, V2),
        [crashed("a", V1), replica("b", V2, "starting")],
        Plan(frozenset(), (Start(V1),)),
    ),
    "what serves may still start while the new one starts": (
        serving(V1, V2),
        [replica("a", V1, "starting"), replica("b", V2, "starting")],
        Plan(frozenset(), ()),
    ),
    "it is stopped once the new one is ready": (
        serving(V1, V2),
        [replica("a", V1, "starting"), replica("b", V2)],
        Plan(frozenset("b"), (Stop("a"), Finish())),
    ),
    "one of a version that was given up is stopped": (
        serving(V1, V3),
        [replica("a", V1), replica("b", V2, "starting")],
        Plan(frozenset("a"), (Stop("b"),)),
    ),
    "fewer replicas: the steadiest stay": (
        serving(V1, V1, replicas=1),
        [replica("a", V1, since_s=5), replica("b", V1, since_s=9)],
        Plan(frozenset("b"), (Finish(),)),
    ),
    "the surplus goes when it is out of traffic": (
        serving(V1),
        [replica("a", V1, unrouted_s=1), replica("b", V1)],
        Plan(frozenset("b"), (Stop("a"),)),
    ),
    "undeployed: out of traffic first": (UNDEPLOY, [replica("a", V1)], Plan(frozenset(), ())),
    "undeployed: then stopped": (
        UNDEPLOY,
        [replica("a", V1, unrouted_s=0)],
        Plan(frozenset(), (Stop("a"), Finish())),
    ),
    "undeployed: nothing is left": (UNDEPLOY, [], Plan(frozenset(), (Finish(),))),
    "asked again for what serves": (AGAIN, [replica("a", V1)], Plan(frozenset("a"), (Finish(),))),
    "asked again for what does not stay up any more": (
        AGAIN,
        [crashed("a", V1, error="disk full"), crashed("b", V1, error="disk full", since_s=2)],
        Plan(frozenset(), (Fail("v1.1.0 does not stay up: disk full"),)),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_plan(case: str) -> None:
    deployment, replicas, expected = CASES[case]
    assert decide(deployment, replicas, LIMITS) == expected


def test_backoff_grows_to_half_a_minute() -> None:
    waits = [backoff(crashes) for crashes in range(12)]
    assert waits[:5] == [0, 0, 0.5, 1, 2]
    assert waits == sorted(waits)
    assert waits[-1] == 30


def test_a_pool_takes_over_only_when_it_has_loaded_the_version() -> None:
    asked = replace(serving(V1, V1, replicas=2), spec=DeploymentSpec(2, min_replicas=0))
    own = [replica("a", V1), replica("b", V1)]
    assert decide(asked, own, LIMITS) == Plan(frozenset("ab"), (Start(V1, on_demand=True),))
    place = replica("p", V1, "starting", on_demand=True)
    assert decide(asked, [*own, place], LIMITS) == Plan(frozenset("ab"), ())
    assert decide(asked, [*own, replica("p", V1, on_demand=True, unrouted_s=1.0)], LIMITS).routed == {"p"}


def test_replicas_take_over_from_a_pool_one_by_one() -> None:
    ran = DeploymentSpec(2, min_replicas=0)
    asked = replace(serving(V1, V2, replicas=2), serving_spec=ran)
    place = replica("p", V1, on_demand=True)
    assert decide(asked, [place], LIMITS).steps == (Start(V2), Start(V2))
    assert decide(asked, [place, replica("a", V2)], LIMITS).routed == {"a", "p"}
    assert decide(asked, [place, replica("a", V2), replica("b", V2)], LIMITS).routed == {"a", "b"}
