"""Inference engines: each a file here and a line in ENGINES. A class is the client of one running engine.

Knows what each engine serves and how it is asked; knows nothing of deployments or of routing between engines.
"""

from __future__ import annotations

from modelyard.engines.choice import Choice, choose
from modelyard.engines.engine import Engine, Serves, Streaming
from modelyard.engines.http import NotReachable, StreamBroken
from modelyard.engines.llamacpp import LlamaCppServer
from modelyard.engines.ollama import OllamaServer
from modelyard.engines.pytorch import PyTorchServer
from modelyard.engines.torchserve import TorchServeServer
from modelyard.engines.vllm import VLLMServer

ENGINES: dict[str, type[Engine]] = {
    PyTorchServer.name: PyTorchServer,
    LlamaCppServer.name: LlamaCppServer,
    VLLMServer.name: VLLMServer,
    OllamaServer.name: OllamaServer,
    TorchServeServer.name: TorchServeServer,
}

__all__ = [
    "ENGINES",
    "Choice",
    "Engine",
    "LlamaCppServer",
    "NotReachable",
    "OllamaServer",
    "PyTorchServer",
    "Serves",
    "StreamBroken",
    "Streaming",
    "TorchServeServer",
    "VLLMServer",
    "choose",
]
