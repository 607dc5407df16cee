"""modelyard: where a team's own AI models are born, checked, served, replaced and taken back."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Public name → where it lives. Loaded when first used, so that importing modelyard costs nothing.
_PUBLIC = {
    "Azure": "modelyard.store",
    "ConfigurationManager": "modelyard.configuration",
    "DeploymentManager": "modelyard.deployment",
    "Digest": "modelyard.refs",
    "EmbeddingManager": "modelyard.embeddings",
    "GCS": "modelyard.store",
    "InferenceGateway": "modelyard.gateway.inference",
    "KubernetesClient": "modelyard.deployment.targets.kubernetes",
    "LlamaCppServer": "modelyard.engines",
    "LocalDisk": "modelyard.store",
    "Memory": "modelyard.store",
    "ModelImporter": "modelyard.importer",
    "ModelRef": "modelyard.refs",
    "ModelRepository": "modelyard.repository",
    "ModelVersion": "modelyard.repository",
    "ModelyardError": "modelyard.errors",
    "OllamaServer": "modelyard.engines",
    "PyTorchServer": "modelyard.engines",
    "Report": "modelyard.deployment",
    "S3": "modelyard.store",
    "Suite": "modelyard.deployment",
    "TorchServeServer": "modelyard.engines",
    "VLLMServer": "modelyard.engines",
    "Version": "modelyard.refs",
    "Yard": "modelyard.yard",
    "get_env": "modelyard.settings",
    "open_store": "modelyard.store",
    "read_suite": "modelyard.deployment",
}

if TYPE_CHECKING:
    from modelyard.configuration import ConfigurationManager
    from modelyard.deployment import DeploymentManager, Report, Suite, read_suite
    from modelyard.deployment.targets.kubernetes import KubernetesClient
    from modelyard.embeddings import EmbeddingManager
    from modelyard.engines import LlamaCppServer, OllamaServer, PyTorchServer, TorchServeServer, VLLMServer
    from modelyard.errors import ModelyardError
    from modelyard.gateway.inference import InferenceGateway
    from modelyard.importer import ModelImporter
    from modelyard.refs import Digest, ModelRef, Version
    from modelyard.repository import ModelRepository, ModelVersion
    from modelyard.settings import get_env
    from modelyard.store import GCS, S3, Azure, LocalDisk, Memory, open_store
    from modelyard.yard import Yard

__all__ = [
    "GCS",
    "S3",
    "Azure",
    "ConfigurationManager",
    "DeploymentManager",
    "Digest",
    "EmbeddingManager",
    "InferenceGateway",
    "KubernetesClient",
    "LlamaCppServer",
    "LocalDisk",
    "Memory",
    "ModelImporter",
    "ModelRef",
    "ModelRepository",
    "ModelVersion",
    "ModelyardError",
    "OllamaServer",
    "PyTorchServer",
    "Report",
    "Suite",
    "TorchServeServer",
    "VLLMServer",
    "Version",
    "Yard",
    "get_env",
    "open_store",
    "read_suite",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'modelyard' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
