"""A corpus of honest models of every format, as the usual libraries save them: all pass and are described rightly."""

from __future__ import annotations

import io
import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import joblib  # type: ignore[import-untyped]
import numpy as np
import onnx
import pytest
import skops.io
import torch
from onnx import TensorProto, helper
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression

from modelyard.importer import ModelImporter
from modelyard.importer.inspect import inspect, inspect_files
from modelyard.repository import ModelInfo, ModelRepository
from modelyard.store import Cache, Memory

from . import builders

CONFIG = {
    "architectures": ["BertForMaskedLM"],
    "model_type": "bert",
    "vocab_size": 32,
    "max_position_embeddings": 64,
    "hidden_size": 8,
}


def network() -> Any:
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))


def single(folder: Path) -> None:
    save_file({"w": torch.zeros(3, 4, dtype=torch.bfloat16)}, folder / "model.safetensors", {"format": "pt"})


def sharded(folder: Path) -> None:
    for number in (1, 2):
        save_file({f"w{number}": torch.zeros(5)}, folder / f"model-{number}.safetensors")
    index = {"weight_map": {f"w{number}": f"model-{number}.safetensors" for number in (1, 2)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def transformers(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(CONFIG))
    save_file({"w": torch.zeros(6)}, folder / "model.safetensors")


def transformers_with_a_pickle(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(CONFIG))
    torch.save(network().state_dict(), folder / "pytorch_model.bin")


def state_dict(folder: Path) -> None:
    torch.save(network().state_dict(), folder / "weights.pt")


def old_state_dict(folder: Path) -> None:
    torch.save(network().state_dict(), folder / "weights.pth", _use_new_zipfile_serialization=False)


def sentence_transformers(folder: Path) -> None:
    shutil.copytree(builders.minilm(), folder, dirs_exist_ok=True)


def gguf(folder: Path) -> None:
    shutil.copy(builders.smollm(), folder)


def onnx_model(folder: Path) -> None:
    weights = helper.make_tensor("w", TensorProto.FLOAT, [4, 2], [0.0] * 8)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in "xy"]
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    onnx.save(helper.make_model(helper.make_graph([node], "g", values[:1], values[1:], [weights])), folder / "m.onnx")


def torchscript(folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 3)), str(folder / "model.pt"))


def fitted() -> Any:
    return LogisticRegression().fit(np.array([[0.0], [1.0]]), [0, 1])


def sklearn_by_skops(folder: Path) -> None:
    skops.io.dump(fitted(), folder / "model.skops")


def arrays(folder: Path) -> None:
    np.save(folder / "a.npy", np.zeros((2, 3)))
    np.savez_compressed(folder / "b.npz", a=np.zeros(3), b=np.array(["x"]))


def plain_joblib(folder: Path) -> None:
    joblib.dump({"threshold": 0.5, "labels": ["cat", "dog"]}, folder / "rules.joblib", compress=3)


MODELS: dict[Callable[[Path], None], dict[str, Any]] = {
    single: {"format": "safetensors", "framework": "pytorch", "parameters": 12, "dtype": "bfloat16"},
    sharded: {"format": "safetensors", "parameters": 10, "dtype": "float32"},
    transformers: {
        **{"format": "transformers", "framework": "pytorch", "task": "fill-mask", "architecture": "BertForMaskedLM"},
        **{"parameters": 6, "dtype": "float32", "context_length": 64, "vocabulary": 32},
    },
    transformers_with_a_pickle: {
        **{"format": "transformers", "framework": "pytorch", "task": "fill-mask", "architecture": "BertForMaskedLM"},
        **{"context_length": 64, "vocabulary": 32},
    },
    state_dict: {"format": "pickle"},
    old_state_dict: {"format": "pickle"},
    sentence_transformers: {
        **{"format": "sentence-transformers", "framework": "pytorch", "task": "sentence-similarity"},
        **{"architecture": "BertModel", "parameters": 22_713_728, "dtype": "float32", "vocabulary": 30522},
        **{"context_length": 256, "embedding_dimension": 384, "languages": ("en",), "license": "apache-2.0"},
    },
    gguf: {
        **{"format": "gguf", "framework": "ggml", "task": "text-generation", "architecture": "llama"},
        **{"parameters": 134_515_008, "vocabulary": 49152, "context_length": 8192, "quantization": "Q4_1"},
        **{"languages": ("en",), "license": "apache-2.0"},
    },
    onnx_model: {"format": "onnx", "framework": "onnx", "parameters": 8, "dtype": "float32"},
    torchscript: {"format": "torchscript", "framework": "pytorch"},
    sklearn_by_skops: {"format": "skops", "framework": "scikit-learn", "architecture": "LogisticRegression"},
    arrays: {},
    plain_joblib: {"format": "pickle"},
}


@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_it_passes_and_is_described(tmp_path: Path, make: Callable[[Path], None]) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    make(folder)
    repository = ModelRepository(Memory(), cache=Cache(tmp_path / "cache"), inspect=inspect_files, user="ada")
    version = ModelImporter(repository).import_model(folder)
    found = {key: value for key, value in _facts(version.model).items() if key != "signature"}
    assert found == MODELS[make]
    assert version.trusted_pickle is None


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_fitted_model_in_a_pickle_needs_somebody_who_vouches(tmp_path: Path, protocol: int) -> None:
    out = io.BytesIO()
    joblib.dump(fitted(), out, protocol=protocol)
    (refused,) = inspect(builders.folder(tmp_path, {"m.joblib": out.getvalue()})).refused.values()
    assert "it asks for sklearn.linear_model._logistic.LogisticRegression" in refused


def _facts(model: ModelInfo) -> dict[str, Any]:
    return {key: value for key, value in asdict(model).items() if value is not None}
