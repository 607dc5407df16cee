"""Inference engines: each a file here and a line in ENGINES. A class is the client of one running engine.

Knows what each engine serves and how it is asked; knows nothing of deployments or of routing between engines.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

from modelyard.engines.llamacpp import LlamaCppServer
from modelyard.engines.ollama import OllamaServer
from modelyard.engines.pytorch import PyTorchServer
from modelyard.engines.vllm import VLLMServer
from modelyard.errors import InvalidInput
from modelyard.repository.manifest import ModelInfo


class Engine(Protocol):
    """`ready_path` answers 200 to GET when the engine can answer requests. An engine that does not keep a connection
    open for the next request may close it just when that arrives, so it gets one connection for each."""

    name: ClassVar[str]
    ready_path: ClassVar[str]
    keeps_connections: ClassVar[bool]

    def predict(self, model_name: str, request: dict[str, Any]) -> dict[str, Any]: ...


ENGINES: dict[str, type[Engine]] = {
    PyTorchServer.name: PyTorchServer,
    LlamaCppServer.name: LlamaCppServer,
    VLLMServer.name: VLLMServer,
    OllamaServer.name: OllamaServer,
}

# The engines that modelyard starts by itself, by the format of the model's files.
_OWN = {
    "gguf": LlamaCppServer.name,
    "onnx": PyTorchServer.name,
    "sentence-transformers": PyTorchServer.name,
    "torchscript": PyTorchServer.name,
}


def engine_for(model: ModelInfo) -> str:
    """The name of the engine of our own that serves this model. Raises InvalidInput when there is none."""
    name = _OWN.get(model.format or "")
    if name is None:
        what = f"the format {model.format}" if model.format else "files of no known model format"
        raise InvalidInput(f"no engine here serves {what}", remedy=f"what can be served: {', '.join(sorted(_OWN))}")
    return name


__all__ = [
    "ENGINES",
    "Engine",
    "LlamaCppServer",
    "OllamaServer",
    "PyTorchServer",
    "VLLMServer",
    "engine_for",
]
