"""InferenceGateway: sends a request to the engine that the model's task and the environment call for.

The rule: language models go to vLLM in production, in development to Ollama or, where none answers, to llama.cpp;
everything else goes to the PyTorch server. Knows nothing of how an engine is run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from modelyard.engines import Engine
from modelyard.engines.http import NotReachable
from modelyard.errors import Unavailable

LANGUAGE_MODEL = "text-generation"


class InferenceGateway:
    """`servers` holds an engine's client under each of vllm, ollama, llamacpp and pytorch; any may be replaced.

    `tasks` tells a model's task (None: unknown). Parts that are not given are those of the default yard.
    """

    def __init__(
        self,
        servers: Mapping[str, Engine] | None = None,
        *,
        env: str | None = None,
        tasks: Callable[[str], str | None] | None = None,
    ) -> None:
        if servers is None or env is None or tasks is None:
            from modelyard import defaults

            default_servers, default_env, default_tasks = defaults.yard().inference_parts()
            servers = default_servers if servers is None else servers
            env, tasks = env or default_env, tasks or default_tasks
        self.servers: dict[str, Engine] = dict(servers)
        self._env = env
        self._tasks = tasks

    def route_request(self, model_name: str, request_data: dict[str, Any]) -> dict[str, Any]:
        """The engine's answer. Raises what the engine raises; Unavailable when there is none for the task."""
        if self._tasks(model_name) != LANGUAGE_MODEL:
            return self.servers["pytorch"].predict(model_name, request_data)
        if self._env == "production":
            return self.servers["vllm"].predict(model_name, request_data)
        return self._ask_local_engine(model_name, request_data)

    def _ask_local_engine(self, model_name: str, request_data: dict[str, Any]) -> dict[str, Any]:
        try:
            return self.servers["ollama"].predict(model_name, request_data)
        except NotReachable as no_ollama:
            try:
                return self.servers["llamacpp"].predict(model_name, request_data)
            except NotReachable as error:
                raise Unavailable(
                    f"{no_ollama.message}, and {error.message}", remedy="start Ollama, or `modelyard up`"
                ) from error
