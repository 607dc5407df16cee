"""What `import modelyard` promises. A change here is a change for everybody who uses it: say so in CHANGELOG.md."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib import import_module
from typing import Any

import pytest

import modelyard

EXPORTED = {
    # Storage backends.
    "Azure",
    "GCS",
    "LocalDisk",
    "Memory",
    "S3",
    "open_store",
    # Models and their versions.
    "Digest",
    "ModelImporter",
    "ModelRef",
    "ModelRepository",
    "ModelVersion",
    "Version",
    # Inference.
    "EmbeddingManager",
    "InferenceGateway",
    "LlamaCppServer",
    "OllamaServer",
    "PyTorchServer",
    "TorchServeServer",
    "VLLMServer",
    # Deployment.
    "DeploymentManager",
    "KubernetesClient",
    "Report",
    "Suite",
    "read_suite",
    # Everything else.
    "ConfigurationManager",
    "ModelyardError",
    "Yard",
    "get_env",
}

PARAMETERS = {
    "ModelRepository": ["storage_backend"],
    "ModelRepository.register_model": ["model_name", "model_version", "artifacts_path", "metadata"],
    "ModelRepository.get_model": ["model_name", "model_version"],
    "ModelRepository.list_models": ["model_name"],
    "ModelRepository.tag": ["name", "tag", "version"],
    "ModelRepository.undo_tag": ["name", "tag"],
    "ModelRepository.tags": ["name"],
    "ModelRepository.history": ["name"],
    "ModelImporter.import_model": ["source", "name", "version"],
    "KubernetesClient.update_deployment": ["name", "new_model_path", "new_model_version", "strategy"],
    "InferenceGateway.route_request": ["model_name", "request_data"],
    "VLLMServer": ["url"],
    "VLLMServer.predict": ["model_name", "request"],
    "OllamaServer.predict": ["model_name", "request"],
    "LlamaCppServer.predict": ["model_name", "request"],
    "PyTorchServer.predict": ["model_name", "request"],
    "TorchServeServer.predict": ["model_name", "request"],
    "VLLMServer.stream": ["model_name", "request"],
    "OllamaServer.stream": ["model_name", "request"],
    "LlamaCppServer.stream": ["model_name", "request"],
    "DeploymentManager": ["model_repository"],
    "DeploymentManager.deploy_to_staging": ["model_name", "model_version"],
    "DeploymentManager.run_validation_tests": ["model_name", "model_version"],
    "DeploymentManager.promote_to_production": ["model_name", "model_version"],
    "DeploymentManager.rollback": ["model_name"],
    "DeploymentManager.status": [],
    "ConfigurationManager": ["storage_backend"],
    "ConfigurationManager.get_config": ["section", "key"],
    "ConfigurationManager.set_config": ["section", "key", "value"],
    "ConfigurationManager.unset_config": ["section", "key"],
    "ConfigurationManager.undo": ["section", "key"],
    "ConfigurationManager.override": ["section", "key", "value"],
    "ConfigurationManager.history": ["section"],
    "ConfigurationManager.watch": ["section", "on_change"],
    "EmbeddingManager": ["config_manager"],
    "EmbeddingManager.get_embedding_model": ["task_type"],
    "EmbeddingManager.model": ["ref"],
    "EmbeddingManager.exposures": [],
}

STORE = {
    "upload": ["source", "destination"],
    "download": ["path"],
    "put_json": ["data", "destination"],
    "get_json": ["path"],
    "list_directories": ["path"],
}


def test_the_exported_names() -> None:
    assert set(modelyard.__all__) == EXPORTED
    assert len(modelyard.__all__) == len(EXPORTED)


def test_every_name_that_is_exported_is_loadable_and_the_other_way_round() -> None:
    assert set(modelyard._PUBLIC) == EXPORTED
    assert set(dir(modelyard)) >= EXPORTED


@pytest.mark.parametrize("name", sorted(EXPORTED))
def test_a_name_is_what_its_module_calls_by_it(name: str) -> None:
    found = getattr(modelyard, name)

    assert found is getattr(import_module(modelyard._PUBLIC[name]), name)
    assert found.__name__ == name


def test_all_can_be_imported_at_once() -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", "from modelyard import *; ModelRepository, S3"], check=True)


def test_an_unknown_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="module 'modelyard' has no attribute 'Nothing'"):
        _ = modelyard.Nothing


@pytest.mark.parametrize("name", sorted(EXPORTED))
def test_everything_public_says_what_it_is(name: str) -> None:
    found = getattr(modelyard, name)

    assert _own_doc(found), f"{name} has no docstring"
    silent = [member for member, value in _methods(found) if not _own_doc(value)]
    assert [member for member in silent if (name, member) not in SELF_EXPLAINING] == []


SERVERS = ("LlamaCppServer", "OllamaServer", "PyTorchServer", "TorchServeServer", "VLLMServer")

# Their classes' docstrings, or their names alone, tell what these take and give.
SELF_EXPLAINING = {
    *((value, "parse") for value in ("Digest", "ModelRef", "Version")),
    ("Digest", "hex"),
    ("Digest", "short"),
    ("ModelRef", "selector"),
    ("ModelVersion", "to_json"),
    ("Report", "to_dict"),
    *((server, member) for server in SERVERS for member in ("predict", "stream", "internal_name")),
}


@pytest.mark.parametrize("path", PARAMETERS)
def test_what_may_be_given_by_position_or_name(path: str) -> None:
    found: Any = modelyard
    for part in path.split("."):
        found = getattr(found, part)

    assert _positional(found) == PARAMETERS[path]


@pytest.mark.parametrize("method", STORE)
def test_what_a_storage_backend_takes(method: str) -> None:
    assert _positional(getattr(modelyard.Memory(), method))[: len(STORE[method])] == STORE[method]


def _positional(function: Any) -> list[str]:
    kinds = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return [p.name for p in inspect.signature(function).parameters.values() if p.kind is kinds and p.name != "self"]


def _methods(found: Any) -> list[tuple[str, Any]]:
    """The public methods and properties that a class of ours has itself."""
    if not inspect.isclass(found):
        return []
    return [
        (name, value)
        for name, value in vars(found).items()
        if not name.startswith("_")
        and not name.startswith("model_")
        and (
            inspect.isfunction(value) or hasattr(value, "fget") or hasattr(value, "func") or hasattr(value, "__func__")
        )
    ]


def _own_doc(found: Any) -> str:
    text = (getattr(found, "__doc__", None) or "").strip()
    return "" if text.startswith(f"{getattr(found, '__name__', '')}(") else text  # as dataclasses write one
