from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelyard.deployment.events import Events, FileNotes, _NotTaken
from modelyard.repository import CanaryStep, DeploymentSpec, Environment, Strategy
from modelyard.store import Memory

from .builders import V1, V2
from .receiver import Receiver, receiving


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@pytest.fixture
def production() -> Environment:
    return Environment(Memory(), "production")


@pytest.fixture
def make(receiver: Receiver, production: Environment, tmp_path: Path) -> Iterator[Callable[[], Events]]:
    made: list[Events] = []

    def open_events() -> Events:
        made.append(Events([production], lambda: receiver.url, FileNotes(tmp_path / "events.json")))
        return made[-1]

    yield open_events
    for events in made:
        events.stop()


def ask(production: Environment, model: str = "digit") -> None:
    spec = DeploymentSpec(strategy=Strategy("canary", steps=(CanaryStep(5, 60),)))
    production.update(model, lambda old: old.ask(V2, spec=spec), by="ann", why=f"promote {model}:v1.2.0")


def test_every_entry_is_sent_once_and_in_order(
    make: Callable[[], Events], receiver: Receiver, production: Environment
) -> None:
    production.update("digit", lambda old: old.ask(V1).finished(), by="ann", why="before anybody listened")
    make().send()
    assert receiver.got == []
    ask(production)
    production.update("digit", lambda old: old.reached(5.0), by="reconciler", why="v1.2.0 gets 5 % of the requests")
    make().send()
    make().send()
    entries = [entry for entry, _ in production.history()][1:]
    assert [(e["id"], e["number"], e["by"], e["why"]) for e in receiver.got] == [
        (entry.id, entry.number, entry.by, entry.why) for entry in entries
    ]
    [model] = receiver.got[-1]["models"]
    assert {key: model[key] for key in ("model", "serving", "target", "outcome", "reason", "step")} == {
        "model": "digit",
        "serving": "v1.1.0",
        "target": "v1.2.0",
        "outcome": "running",
        "reason": "step 1 of 1: v1.2.0 gets 5 % of the requests",
        "step": 0,
    }


def test_an_entry_names_the_models_that_it_changed(
    make: Callable[[], Events], receiver: Receiver, production: Environment
) -> None:
    make().send()
    ask(production, "letter")
    ask(production, "digit")
    make().send()
    assert [[m["model"] for m in event["models"]] for event in receiver.got] == [["letter"], ["digit"]]


def test_what_is_not_taken_is_sent_again(
    make: Callable[[], Events], receiver: Receiver, production: Environment
) -> None:
    events = make()
    events.send()
    ask(production)
    receiver.statuses = [503, 429]
    for _ in range(2):
        with pytest.raises(_NotTaken, match="answers"):
            events.send()
    make().send()  # after the process was killed
    assert len({event["id"] for event in receiver.got}) == 1
    assert len(receiver.got) == 3


def test_what_is_refused_is_not(
    make: Callable[[], Events], receiver: Receiver, production: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    events = make()
    events.send()
    ask(production)
    receiver.statuses = [410]
    events.send()
    ask(production, "letter")
    events.send()
    assert [event["number"] for event in receiver.got] == [1, 2]
    assert "refuses the event" in caplog.text


def test_a_receiver_that_is_away_is_waited_for(production: Environment, tmp_path: Path) -> None:
    events = Events([production], lambda: "http://127.0.0.1:9/hook", FileNotes(tmp_path / "events.json"))
    events.send()
    ask(production)
    with pytest.raises(_NotTaken, match="can't be reached"):
        events.send()
    events.stop()


def test_without_an_address_nothing_is_read(production: Environment, tmp_path: Path) -> None:
    events = Events([production], lambda: None, FileNotes(tmp_path / "events.json"))
    events.start()
    events.send()
    events.stop()
    assert list(tmp_path.iterdir()) == []
