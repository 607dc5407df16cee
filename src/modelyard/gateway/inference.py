"""InferenceGateway: sends a request to the engine that the model's task and the environment call for.

The rule is in `engines.choice`. Where `modelyard up` runs, its gateway is asked, so names, splits and fallbacks are
those of its route table; an engine whose address somebody has set is asked there. Knows nothing of how engines run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from modelyard.configuration.sections import External
from modelyard.engines import ENGINES, Engine, NotReachable, openai, v2
from modelyard.engines.choice import preferred
from modelyard.engines.http import Client
from modelyard.errors import InvalidInput, NotFound, Unavailable
from modelyard.repository.manifest import ModelInfo


class OwnGateway:
    """The gateway of `modelyard up`; it takes OpenAI's requests and those of the Open Inference Protocol v2."""

    def __init__(self, url: str, *, timeout_s: float = 300, token: SecretStr | None = None) -> None:
        self._client = Client("gateway", url, "start `modelyard up`", timeout_s, token)

    def predict(self, model_name: str, request: dict[str, Any]) -> dict[str, Any]:
        """Raises NotFound also for a request in a shape that is not routed."""
        if "inputs" in request:
            return v2.infer(self._client, model_name, request)
        if {"messages", "prompt", "input"} & request.keys():
            return openai.post(self._client, model_name, request)
        raise NotFound("the gateway routes no such request", remedy="send messages, prompt, input or inputs")


@dataclass(frozen=True, slots=True)
class Parts:
    """What an InferenceGateway is made of. `models` tells what inspection found, `configured` the engine that the
    configuration names for a model, `external` the engine elsewhere that has it; `addressed`: the engines whose
    address somebody has set."""

    servers: Mapping[str, Engine]
    env: str
    models: Callable[[str], ModelInfo]
    configured: Callable[[str], str | None] = lambda _: None
    external: Callable[[str], External | None] = lambda _: None
    gateway: OwnGateway | None = None
    addressed: frozenset[str] = frozenset()
    timeout_s: float = 300


class InferenceGateway:
    """`servers` holds an engine's client under each of vllm, ollama, llamacpp, pytorch and torchserve; any may be
    replaced. What is not given comes from the default yard."""

    def __init__(self, servers: Mapping[str, Engine] | None = None, *, parts: Parts | None = None) -> None:
        if parts is None:
            from modelyard import defaults

            parts = defaults.yard().inference_parts()
        self._parts: Parts = parts
        self.servers: dict[str, Engine] = dict(parts.servers if servers is None else servers)

    def route_request(self, model_name: str, request_data: dict[str, Any]) -> dict[str, Any]:
        """The engine's answer. Raises what the engine raises; Unavailable when none for the model is there."""
        if external := self._parts.external(model_name):
            server = ENGINES[external.engine](external.url, timeout_s=self._parts.timeout_s)
            return server.predict(external.model or model_name, request_data)
        try:
            candidates = self._candidates(model_name)
        except (NotFound, InvalidInput):  # a name that only the gateway knows
            if self._parts.gateway is None:
                raise
            return self._parts.gateway.predict(model_name, request_data)
        absent: list[NotReachable] = []
        for engine in candidates:
            try:
                return self._ask(engine, model_name, request_data)
            except NotReachable as error:
                absent.append(error)
        said = ", and ".join(error.message for error in absent)
        raise Unavailable(said, remedy=" or ".join(error.remedy for error in absent)) from absent[-1]

    def _candidates(self, model_name: str) -> list[str]:
        """The engine that serves the model; after Ollama also llama.cpp, which is asked where no Ollama answers.

        Into an engine whose address is set somebody has put the model, in whatever format that engine likes.
        """
        if configured := self._parts.configured(model_name):
            return [configured]
        model = self._parts.models(model_name)
        names = preferred(model.task, self._parts.env)
        fit = [n for n in names if n in self._parts.addressed or any(s.takes(model) for s in ENGINES[n].serves)]
        first = (fit or names)[0]
        return [first, "llamacpp"] if first == "ollama" else [first]

    def _ask(self, engine: str, model_name: str, request: dict[str, Any]) -> dict[str, Any]:
        server = self.servers[engine]
        replaced = server is not self._parts.servers.get(engine)
        if self._parts.gateway is not None and not replaced and engine not in self._parts.addressed:
            try:
                return self._parts.gateway.predict(model_name, request)
            except (NotReachable, NotFound):
                pass  # not run by modelyard: it may stand where engines of this kind listen by default
        return server.predict(model_name, request)
