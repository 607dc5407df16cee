from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import pytest

from modelyard.configuration.sections import External
from modelyard.engines import Engine, NotReachable, Serves
from modelyard.engines.engine import TEXT_GENERATION
from modelyard.errors import InvalidInput, NotFound, Unavailable
from modelyard.gateway.inference import InferenceGateway, OwnGateway, Parts
from modelyard.refs import ModelRef
from modelyard.repository.manifest import ModelInfo

from .support import Scripted, scripted_engine


@dataclass
class Fake:
    name: ClassVar[str] = "fake"
    serves: ClassVar[tuple[Serves, ...]] = ()
    devices: ClassVar[tuple[str, ...]] = ()
    ready_path: ClassVar[str] = "/"
    keeps_connections: ClassVar[bool] = True
    refuses_with_500: ClassVar[tuple[str, ...]] = ()
    url: str = ""
    timeout_s: float = 1
    raises: Exception | None = None
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def predict(self, model_name: str, request: dict[str, Any]) -> dict[str, Any]:
        if self.raises is not None:
            raise self.raises
        self.asked.append((model_name, request))
        return {"by": id(self)}

    @staticmethod
    def internal_name(ref: ModelRef) -> str | None:
        return None


MODELS = {
    "chat": ModelInfo(TEXT_GENERATION, "gguf"),
    "llama": ModelInfo(TEXT_GENERATION, "transformers"),
    "embed": ModelInfo("feature-extraction", "sentence-transformers"),
    "odd": ModelInfo(format="pickle"),
}
ABSENT = NotReachable("no Ollama answers at http://x", remedy="start it")
PROMPT: dict[str, Any] = {"prompt": "hi"}


def models(name: str) -> ModelInfo:
    if name not in MODELS:
        raise NotFound(f"there is no model {name}")
    return MODELS[name]


def parts(env: str = "production", **replaced: Engine) -> Parts:
    servers: dict[str, Engine] = {name: Fake() for name in ("vllm", "ollama", "llamacpp", "pytorch", "torchserve")}
    return Parts({**servers, **replaced}, env, models)


def engine_asked(gateway: InferenceGateway, model: str) -> str:
    answer = gateway.route_request(model, PROMPT)
    return next(name for name, server in gateway.servers.items() if {"by": id(server)} == answer)


@pytest.mark.parametrize(
    ("env", "model", "engine"),
    [
        ("production", "llama", "vllm"),
        ("production", "chat", "llamacpp"),
        ("development", "chat", "ollama"),
        ("production", "embed", "pytorch"),
        ("development", "embed", "pytorch"),
        ("production", "odd", "pytorch"),
    ],
)
def test_the_engine_follows_from_task_format_and_environment(env: str, model: str, engine: str) -> None:
    assert engine_asked(InferenceGateway(parts=parts(env)), model) == engine


def test_an_engine_whose_address_is_set_is_asked_whatever_the_format() -> None:
    addressed = replace(parts(), addressed=frozenset({"vllm"}))
    assert engine_asked(InferenceGateway(parts=addressed), "chat") == "vllm"


def test_what_is_configured_counts_instead_of_the_rule() -> None:
    configured: Callable[[str], str | None] = {"chat": "torchserve"}.get
    gateway = InferenceGateway(parts=replace(parts(), configured=configured))
    assert engine_asked(gateway, "chat") == "torchserve"
    assert engine_asked(gateway, "llama") == "vllm"


def test_without_ollama_llamacpp_answers() -> None:
    assert engine_asked(InferenceGateway(parts=parts("development", ollama=Fake(raises=ABSENT))), "chat") == "llamacpp"


@pytest.mark.parametrize("error", [NotFound("no such model"), Unavailable("too slow")])
def test_an_ollama_that_refuses_is_not_passed_by(error: Exception) -> None:
    with pytest.raises(type(error)):
        InferenceGateway(parts=parts("development", ollama=Fake(raises=error))).route_request("chat", {})


def test_without_any_both_are_named() -> None:
    absent = NotReachable("no llama.cpp answers at http://y", remedy="start that")
    there = parts("development", ollama=Fake(raises=ABSENT), llamacpp=Fake(raises=absent))
    with pytest.raises(
        Unavailable, match=r"no Ollama answers at http://x, and no llama\.cpp answers at http://y; start it or start"
    ):
        InferenceGateway(parts=there).route_request("chat", {})


def test_servers_can_be_replaced_afterwards() -> None:
    gw = InferenceGateway(parts=parts())
    gw.servers["vllm"] = mine = Fake()
    assert gw.route_request("llama", {}) == {"by": id(mine)}
    assert InferenceGateway({"vllm": mine}, parts=parts()).route_request("llama", {}) == {"by": id(mine)}


def test_parts_that_are_not_given_are_the_default_yards(monkeypatch: pytest.MonkeyPatch) -> None:
    from modelyard import defaults

    found = parts()

    class Yard:
        def inference_parts(self) -> Parts:
            return found

    monkeypatch.setattr(defaults, "yard", Yard)
    assert InferenceGateway().servers == found.servers
    assert InferenceGateway().route_request("llama", {}) == {"by": id(found.servers["vllm"])}


# Where `modelyard up` runs.


def test_its_gateway_is_asked_under_the_same_name() -> None:
    script = Scripted(body=b'{"by": "gateway"}')
    with scripted_engine(script) as url:
        gateway = InferenceGateway(parts=replace(parts(), gateway=OwnGateway(url)))
        assert gateway.route_request("chat:staging", PROMPT) == {"by": "gateway"}
        assert gateway.route_request("embed", {"inputs": []}) == {"by": "gateway"}
        assert gateway.route_request("only-the-gateway-knows", PROMPT) == {"by": "gateway"}
    assert [path for path, _ in script.asked] == ["/v1/completions", "/v2/models/embed/infer", "/v1/completions"]
    assert script.asked[0][1]["model"] == "chat:staging"


def test_what_it_does_not_route_goes_to_the_engine() -> None:
    with scripted_engine(Scripted(404, b'{"error": {"message": "nobody serves it"}}')) as url:
        gateway = InferenceGateway(parts=replace(parts(), gateway=OwnGateway(url)))
        assert engine_asked(gateway, "llama") == "vllm"
    with scripted_engine(Scripted()) as url:
        gateway = InferenceGateway(parts=replace(parts(), gateway=OwnGateway(url)))
        assert gateway.route_request("odd", {"text": "hi"}) == {"by": id(gateway.servers["pytorch"])}
    gateway = InferenceGateway(parts=replace(parts(), gateway=OwnGateway(url)))  # now it is gone
    assert engine_asked(gateway, "llama") == "vllm"


def test_its_refusals_are_final() -> None:
    with scripted_engine(Scripted(503, b'{"error": "no replica is ready"}')) as url, pytest.raises(Unavailable):
        InferenceGateway(parts=replace(parts(), gateway=OwnGateway(url))).route_request("llama", PROMPT)


def test_a_server_that_was_set_or_replaced_comes_before_it() -> None:
    with scripted_engine(Scripted(body=b'{"by": "gateway"}')) as url:
        there = replace(parts(), gateway=OwnGateway(url), addressed=frozenset({"vllm"}))
        assert engine_asked(InferenceGateway(parts=there), "llama") == "vllm"
        gateway = InferenceGateway(parts=there)
        gateway.servers["pytorch"] = mine = Fake()
        assert gateway.route_request("embed", PROMPT) == {"by": id(mine)}


def test_a_name_that_nobody_knows() -> None:
    with pytest.raises(NotFound, match="no model nothing"):
        InferenceGateway(parts=parts()).route_request("nothing", PROMPT)
    with pytest.raises(NotReachable, match="no gateway answers"):
        own = OwnGateway("http://127.0.0.1:1")
        InferenceGateway(parts=replace(parts(), gateway=own)).route_request("nothing", PROMPT)


@pytest.mark.parametrize(
    ("engine", "model", "path", "sent"),
    [
        ("vllm", "llama-3", "/v1/completions", {"prompt": "hi", "model": "llama-3"}),
        ("torchserve", None, "/predictions/partner", {"prompt": "hi"}),
    ],
)
def test_an_engine_elsewhere_is_asked_by_its_own_name_for_the_model(
    engine: str, model: str | None, path: str, sent: dict[str, Any]
) -> None:
    script = Scripted(body=b'{"answer": 42}')
    with scripted_engine(script) as url:
        listed = {"partner": External.model_validate({"engine": engine, "url": url, "model": model})}
        gateway = InferenceGateway(parts=replace(parts(), external=listed.get))
        assert gateway.route_request("partner", PROMPT) == {"answer": 42}
    assert script.asked == [(path, sent)]


def test_a_request_that_cannot_be_sent_is_refused() -> None:
    with pytest.raises(InvalidInput, match="can't be written as JSON"):
        own = OwnGateway("http://127.0.0.1:1")
        InferenceGateway(parts=replace(parts(), gateway=own)).route_request("llama", {"prompt": {1}})
