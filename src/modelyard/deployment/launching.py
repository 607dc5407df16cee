"""How a version becomes a process on this machine: which engine is chosen for it, and how that is started.

The choice itself is `engines.choice`; here is what it has to know: what is configured, and which engines are there.
"""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from modelyard.deployment.facts import engine_of
from modelyard.deployment.targets.launch import Launch
from modelyard.engines import ENGINES, OllamaServer, VLLMServer, choose, keeper, llamacpp, vllm
from modelyard.errors import InvalidInput, ModelyardError, Unavailable
from modelyard.refs import ModelRef
from modelyard.repository import ModelVersion
from modelyard.settings import Settings

_PATIENCE_S = 2.0

log = logging.getLogger("modelyard.engines")


@dataclass(frozen=True, slots=True)
class Launching:
    """`configured` gives the engine that the configuration names for a model, if it does; `locks` is a folder for the
    keepers of versions in Ollama."""

    settings: Settings
    configured: Callable[[str], str | None]
    locks: Path

    def choose(self, version: ModelVersion, wanted: str | None = None) -> str:
        """The engine for a version: the one that is wanted or configured, else by the rule. Raises InvalidInput."""
        configured = wanted or self.configured(version.name)
        choice = choose(
            version.model,
            ENGINES,
            env=self.settings.env,
            configured=configured,
            option=wanted is not None,
            absent=self._absent,
        )
        for name, why in choice.passed.items():
            log.info("%s:%s goes to %s, not to %s: %s", version.name, version.version, choice.engine, name, why)
        return choice.engine

    def launch(self, version: ModelVersion, replica: str, port: int) -> Launch:
        """The command line of a replica, whose id stands in it."""
        name = self.choose(version)
        engine, ref = ENGINES[name], _exact(version)
        argv = [sys.executable, "-m", "modelyard", "serve", str(ref), "--engine", name]
        argv += ["--host", "127.0.0.1", "--port", str(port), "--replica-id", replica]
        argv += ["--environment", replica.partition("-")[0]]  # a replica's id begins with it
        elsewhere = name == OllamaServer.name
        return Launch(
            argv,
            keeper.READY_PATH if elsewhere else engine.ready_path,
            engine.keeps_connections,
            engine=name,
            endpoint=_address(self.settings.engines.ollama_url) if elsewhere else None,
            internal_name=engine.internal_name(ref),
        )

    def run(self, engine: str, version: ModelVersion, folder: Path, *, host: str, port: int, replica: str = "") -> int:
        """Serve a version with an engine that has this process for itself. The exit code."""
        serving, engines = self.settings.serving, self.settings.engines
        if engine == VLLMServer.name:
            command = (engines.vllm_command or "vllm", *vllm.runner(version.model.task), *engines.vllm_arguments)
            names = [name for name in (version.name, replica) if name]
            vllm.run(command, folder, names=names, host=host, port=port, drain_s=serving.drain_timeout_s)
        if engine == OllamaServer.name:
            name = OllamaServer.internal_name(_exact(version))
            return keeper.run(
                self._ollama(engines.timeout_s), folder, name=name, locks=self.locks, host=host, port=port
            )
        return llamacpp.run(folder, model_name=version.name, host=host, port=port, settings=serving)

    def facts(self, version: ModelVersion, engine: str | None = None) -> dict[str, str]:
        """What a version runs on, or would if no engine is given: engine, its version, the precision, the device."""
        found = engine_of(version)
        try:
            engine = engine or self.choose(version)
        except InvalidInput:  # no engine here can; another system may
            return found
        if engine == VLLMServer.name:
            release = vllm.release(self.settings.engines.vllm_command or "vllm") or "unknown"
            precision = vllm.dtype(self.settings.engines.vllm_arguments) or found["precision"]
            device = "cpu" if release.endswith("+cpu") else "gpu"
            return {"engine": engine, "version": f"vllm {release}", "precision": precision, "device": device}
        if engine == OllamaServer.name:
            return found | {
                "engine": engine,
                "version": f"ollama {self._ollama(_PATIENCE_S).release()}",
                "device": "any",
            }
        return found

    def _absent(self, engine: str) -> str | None:
        """Why an engine can't be used on this machine."""
        try:
            if engine == VLLMServer.name:
                if self.settings.engines.vllm_command is None:
                    return "engines.vllm_command is not set"
                vllm.program(self.settings.engines.vllm_command)
            if engine == OllamaServer.name:
                _address(self.settings.engines.ollama_url)
                self._ollama(_PATIENCE_S).release()
        except ModelyardError as error:
            return error.message
        return None

    def _ollama(self, timeout_s: float) -> OllamaServer:
        return OllamaServer(self.settings.engines.ollama_url, timeout_s=timeout_s)


def _exact(version: ModelVersion) -> ModelRef:
    return ModelRef(version.name, version.version, digest=version.digest)


def _address(url: str) -> tuple[str, int]:
    """The IP address and port behind a URL, for the gateway. Raises InvalidInput, Unavailable."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise InvalidInput(f"the gateway can't send requests to {url}", remedy="give an address with http://")
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Unavailable(f"{parts.hostname} can't be resolved: {error.strerror}") from error
    # Ollama listens on IPv4 unless it is told otherwise.
    _, _, _, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
    return str(address[0]), int(address[1])
