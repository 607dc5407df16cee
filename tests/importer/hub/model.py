"""The repository that the tests import."""

from __future__ import annotations

import json

from .. import builders  # noqa: TID252 - the one way up, for all tests in this folder

__all__ = ["FILES", "LFS", "NAME", "WEIGHTS", "builders"]

NAME = "tiny-org/Tiny-Model"
WEIGHTS = builders.safetensors(
    {"a": {"dtype": "F32", "shape": [1 << 19], "data_offsets": [0, 2 << 20]}}, bytes(2 << 20)
)
FILES = {
    "README.md": b"---\nlicense: apache-2.0\nlanguage: en\n---\n# Tiny\n",
    "config.json": json.dumps({"model_type": "bert", "architectures": ["BertModel"]}).encode(),
    "model.safetensors": WEIGHTS,
    "quant/tiny-Q4_K_M.gguf": builders.gguf({"general.architecture": "llama", "general.file_type": 15}),
    "quant/tiny-Q8_0.gguf": builders.gguf({"general.architecture": "llama", "general.file_type": 7}),
}
LFS = frozenset(path for path in FILES if path.endswith((".safetensors", ".gguf")))
