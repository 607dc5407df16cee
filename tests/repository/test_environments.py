"""What a deployment's record says after each wish and each outcome."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from typing import Any

import pytest

from modelyard.errors import IntegrityError
from modelyard.refs import Digest, Version
from modelyard.repository import CanaryStep, Deployment, DeploymentSpec, Environment, Pause, Pin, Strategy
from modelyard.store import Memory, Store

A, B, C = (Pin(Version(1, minor, 0), Digest(f"sha256:{minor:064x}")) for minor in range(3))
PINS: dict[str, Pin | None] = {"A": A, "B": B, "C": C, "-": None}

# Steps (a wish, "ok", "failed") → serving, target, earlier (newest first), outcome.
TABLE = {
    "": ("-", "-", "", ""),
    "A": ("-", "A", "", "running"),
    "A ok": ("A", "A", "", "done"),
    "A failed": ("-", "-", "", "failed"),
    "A ok B": ("A", "B", "", "running"),
    "A ok B ok": ("B", "B", "A", "done"),
    "A ok B failed": ("A", "A", "", "failed"),
    "A ok B ok C ok": ("C", "C", "BA", "done"),
    "A ok B ok C ok B ok": ("B", "B", "A", "done"),  # a rollback
    "A ok B ok C ok B ok A ok": ("A", "A", "", "done"),  # and another
    "A ok B ok C ok A ok": ("A", "A", "CBA", "done"),  # an older one again: no rollback
    "A ok B ok C ok B failed": ("C", "C", "BA", "failed"),
    "A ok A ok": ("A", "A", "", "done"),  # the same again, with other replicas perhaps
    "A ok B C ok": ("C", "C", "A", "done"),  # a wish overtaken by another
    "A ok B A ok": ("A", "A", "", "done"),  # a wish taken back
    "A ok -": ("A", "-", "", "running"),
    "A ok - ok": ("-", "-", "A", "done"),  # taken out of service
    "A ok - ok A ok": ("A", "A", "", "done"),
    "A ok B failed C ok": ("C", "C", "A", "done"),
    "A ok B ok undone": ("A", "A", "", "failed"),
    "A ok B ok A ok undone": ("B", "B", "A", "failed"),  # a rollback taken back
}


@pytest.mark.parametrize("steps", TABLE)
def test_the_record_after_each_step(steps: str) -> None:
    deployment = Deployment()
    for step in steps.split():
        match step:
            case "ok":
                deployment = deployment.finished()
            case "failed":
                deployment = deployment.failed("it did not start")
            case "undone":
                deployment = deployment.undone("it did not start")
            case _:
                deployment = deployment.ask(PINS[step])
    serving, target, earlier, outcome = TABLE[steps]
    assert deployment.serving == PINS[serving]
    assert deployment.target == PINS[target]
    assert deployment.earlier == tuple(PINS[name] for name in earlier)
    assert deployment.outcome == outcome
    assert deployment.rolling == (serving != target)
    assert deployment.reason == ("it did not start" if outcome == "failed" else "")


def test_every_wish_is_a_rollout_of_its_own() -> None:
    first = Deployment().ask(A, spec=DeploymentSpec(replicas=3), evidence="e1")
    second = first.ask(A)
    assert first.rollout != second.rollout
    assert (first.evidence, second.evidence) == ("e1", None)
    assert second.spec == DeploymentSpec(replicas=3)
    assert second.finished().rollout == second.rollout


def test_only_so_many_earlier_versions_are_kept() -> None:
    deployment = Deployment()
    pins = [Pin(Version(1, 0, patch), A.digest) for patch in range(30)]
    for pin in pins:
        deployment = deployment.ask(pin).finished()
    assert deployment.earlier == tuple(reversed(pins[9:29]))


def test_refs_are_each_version_once() -> None:
    rolling = Deployment(serving=A, target=B)
    assert [str(ref) for ref in rolling.refs("digits")] == [f"digits:{pin}@{pin.digest}" for pin in (A, B)]
    assert len(Deployment(serving=A, target=A).refs("digits")) == 1
    assert Deployment().refs("digits") == ()


def test_an_environment_keeps_what_was_written(store: Store) -> None:
    environment = Environment(store, "staging")
    assert environment.read() == {}
    assert environment.get("digits") == Deployment()
    spec = DeploymentSpec(replicas=2, strategy=Strategy(surge=3, steps=(CanaryStep(5, 60), CanaryStep(50))))
    asked = environment.update("digits", lambda old: old.ask(A, spec=spec, evidence="e"), by="me", why="stage")
    environment.update("ns/other", lambda old: old.ask(B), by="me", why="stage")
    done = environment.update("digits", lambda old: old.finished(), by="reconciler", why="ready")
    assert environment.get("digits") == done == asked.finished()
    assert set(environment.read()) == {"digits", "ns/other"}
    history = environment.history()
    assert [(entry.number, entry.by) for entry, _ in history] == [(1, "me"), (2, "me"), (3, "reconciler")]
    assert history[0][1] == {"digits": asked}
    assert history[-1][1] == environment.read()


def test_no_change_is_no_entry() -> None:
    environment = Environment(Memory(), "staging")
    assert environment.update("digits", lambda old: None, by="me", why="nothing") == Deployment()
    assert environment.history() == []


def test_models_of_one_environment_change_side_by_side() -> None:
    environment = Environment(Memory(), "production")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: environment.update(f"m{n}", lambda old: old.ask(A), by="me", why="x"), range(24)))
    assert set(environment.read()) == {f"m{n}" for n in range(24)}


def test_a_record_nobody_can_read_is_named() -> None:
    store = Memory()
    entry = {"number": 1, "id": "x", "at": "", "by": "", "why": "", "state": {"digits": {"serving": {"version": "x"}}}}
    store.put_json(entry, "deployments/staging/999999999998.json")
    with pytest.raises(IntegrityError, match="deployments/staging can't be read"):
        Environment(store, "staging").read()


def test_entries_since_one_each_with_the_one_before() -> None:
    environment = Environment(Memory(), "production")
    assert environment.newest() is None
    assert list(environment.since(0)) == []
    for pin in (A, B, A):
        environment.update("digits", lambda old, pin=pin: old.ask(pin), by="me", why="x")  # type: ignore[misc]
    entries = [entry for entry, _ in environment.history()]
    assert list(environment.since(0)) == [(None, entries[0]), (entries[0], entries[1]), (entries[1], entries[2])]
    assert list(environment.since(2)) == [(entries[1], entries[2])]
    assert list(environment.since(3)) == []
    assert environment.newest() == entries[2]


def test_how_far_a_rollout_is() -> None:
    spec = DeploymentSpec(strategy=Strategy("canary", 0, 1, (CanaryStep(5, 60),), keep_warm_s=60))
    asked = Deployment().ask(A).finished().ask(B, spec=spec)
    assert asked.under_way
    paused = asked.reached(7.0).paused(Pause("asked", "a look", "ann", 8.0))
    assert paused.resumed().progress == asked.reached(7.0).progress
    assert asked.paused(Pause("analysis", "too few", "reconciler", 8.0)).resumed().progress.released
    assert paused.advanced().progress.step == 1
    done = asked.reached(7.0).finished(9.0)
    assert (done.switched, done.replaced, done.progress.step, done.under_way) == (7.0, A, 0, False)
    assert asked.finished(9.0).switched == 9.0
    back = asked.failed("worse")
    assert (back.target, back.spec.strategy, back.switched) == (A, spec.strategy, None)


# An entry in the middle of a rollout, as the first form of the journals had it, and what models on demand added to it.
FIRST: dict[str, Any] = {
    "serving": {"version": "v1.0.0", "digest": str(A.digest)},
    "target": {"version": "v1.1.0", "digest": str(B.digest)},
    "earlier": [],
    "spec": {"replicas": 2, "surge": 1},
    "evidence": "default-5b6f0c1e7a3d-pytorch",
    "rollout": "0c9d5f7a4e1b4c2d8f6a3b5e7d9c1a2f",
    "outcome": "running",
    "reason": "",
}
_ON_DEMAND = {"replicas": 2, "surge": 1, "min_replicas": None}
FORMS = {"first": FIRST, "with models on demand": FIRST | {"spec": _ON_DEMAND, "serving_spec": _ON_DEMAND}}


def journal_with(deployment: dict[str, Any], **more: Any) -> Environment:
    """Production's journal, whose third entry somebody has written so."""
    store = Memory()
    entry = {"number": 3, "id": "ab" * 16, "at": "2026-11-23T23:10:11+00:00", "by": "anna@laptop", "why": "promote"}
    store.put_json(entry | {"state": {"digits": deployment}} | more, "deployments/production/999999999996.json")
    return Environment(store, "production")


@pytest.mark.parametrize("form", FORMS)
def test_entries_of_earlier_forms_are_read_and_gone_on_with(form: str) -> None:
    environment = journal_with(FORMS[form])
    spec = DeploymentSpec(replicas=2)
    read = environment.get("digits")
    assert read == Deployment(
        serving=A,
        target=B,
        spec=spec,
        evidence=FIRST["evidence"],
        rollout=FIRST["rollout"],
        outcome="running",
        serving_spec=None if form == "first" else spec,
    )
    done = environment.update("digits", lambda old: old.finished(9.0), by="reconciler", why="v1.1.0 serves")
    assert done == environment.get("digits") == read.finished(9.0)
    assert (done.serving, done.serving_spec, done.earlier) == (B, spec, (A,))
    assert [entry.number for entry, _ in environment.history()] == [3, 4]


def test_fields_of_later_versions_are_passed_over_and_stay_until_their_model_changes() -> None:
    later = FIRST | {"frozen": {"until": "2027-01-01"}, "spec": {"replicas": 2, "colour": "blue"}}
    environment = journal_with(later, signed_by="anna")
    assert environment.get("digits") == journal_with(FIRST).get("digits")

    environment.update("other", lambda old: old.ask(A), by="me", why="another model")
    newest = environment.newest()
    assert newest and newest.state["digits"] == later

    environment.update("digits", lambda old: old.finished(), by="reconciler", why="v1.1.0 serves")
    newest = environment.newest()
    assert newest and newest.state["digits"].keys() == {field.name for field in fields(Deployment)}


@pytest.mark.parametrize("change", [{"outcome": "frozen"}, {"spec": {"strategy": {"kind": "blue-green"}}}])
def test_values_of_later_versions_are_refused(change: dict[str, Any]) -> None:
    environment = journal_with(FIRST | change)
    with pytest.raises(IntegrityError, match="deployments/production can't be read: "):
        environment.read()
    with pytest.raises(IntegrityError):
        environment.update("digits", lambda old: old.finished(), by="me", why="x")
