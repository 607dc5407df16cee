from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from modelyard.engines.http import NotReachable
from modelyard.errors import NotFound, Unavailable
from modelyard.gateway.inference import InferenceGateway


@dataclass
class Fake:
    name: ClassVar[str] = "fake"
    ready_path: ClassVar[str] = "/"
    keeps_connections: ClassVar[bool] = True
    raises: Exception | None = None
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def predict(self, model_name: str, request: dict[str, Any]) -> dict[str, Any]:
        if self.raises is not None:
            raise self.raises
        self.asked.append((model_name, request))
        return {"by": id(self)}


TASKS = {"chat": "text-generation", "embed": "feature-extraction"}
ABSENT = NotReachable("no Ollama answers at http://x", remedy="start it")


def gateway(env: str, **replaced: Fake) -> InferenceGateway:
    servers = {name: Fake() for name in ("vllm", "ollama", "llamacpp", "pytorch")}
    return InferenceGateway({**servers, **replaced}, env=env, tasks=TASKS.get)


@pytest.mark.parametrize(
    ("env", "model", "engine"),
    [
        ("production", "chat", "vllm"),
        ("development", "chat", "ollama"),
        ("production", "embed", "pytorch"),
        ("development", "embed", "pytorch"),
        ("production", "unknown-llm", "pytorch"),
    ],
)
def test_the_engine_follows_from_task_and_environment(env: str, model: str, engine: str) -> None:
    gw = gateway(env)
    assert gw.route_request(model, {"prompt": "hi"}) == {"by": id(gw.servers[engine])}
    asked = {name: server.asked for name, server in gw.servers.items() if isinstance(server, Fake) and server.asked}
    assert asked == {engine: [(model, {"prompt": "hi"})]}


def test_without_ollama_llamacpp_answers() -> None:
    gw = gateway("development", ollama=Fake(raises=ABSENT))
    assert gw.route_request("chat", {}) == {"by": id(gw.servers["llamacpp"])}


@pytest.mark.parametrize("error", [NotFound("no such model"), Unavailable("too slow")])
def test_an_ollama_that_refuses_is_not_passed_by(error: Exception) -> None:
    with pytest.raises(type(error)):
        gateway("development", ollama=Fake(raises=error)).route_request("chat", {})


def test_without_any_both_are_named() -> None:
    absent = NotReachable("no llama.cpp answers at http://y", remedy="start it")
    with pytest.raises(
        Unavailable, match=r"no Ollama answers at http://x, and no llama\.cpp answers at http://y; start"
    ):
        gateway("development", ollama=Fake(raises=ABSENT), llamacpp=Fake(raises=absent)).route_request("chat", {})


def test_servers_can_be_replaced_afterwards() -> None:
    gw = gateway("production")
    gw.servers["vllm"] = mine = Fake()
    assert gw.route_request("chat", {}) == {"by": id(mine)}


def test_parts_that_are_not_given_are_the_default_yards(monkeypatch: pytest.MonkeyPatch) -> None:
    from modelyard import defaults

    servers = {"pytorch": Fake(), "vllm": Fake()}

    class Yard:
        def inference_parts(self) -> tuple[dict[str, Fake], str, Any]:
            return servers, "production", TASKS.get

    monkeypatch.setattr(defaults, "yard", Yard)
    assert InferenceGateway().servers == servers
    assert InferenceGateway().route_request("chat", {}) == {"by": id(servers["vllm"])}
    mine = Fake()
    assert InferenceGateway({"vllm": mine}).route_request("chat", {}) == {"by": id(mine)}
