"""GGUF: llama.cpp's format, a header of keys, values and tensor descriptions, then the tensors.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3. Every count and length is checked
against what is left of the file before anything is read.
"""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

from modelyard.importer.inspect import card
from modelyard.importer.inspect.folder import Folder, broken, text, whole
from modelyard.repository.manifest import ModelInfo
from modelyard.store.files import File

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_KEPT_STRING = 64 << 10
_KEPT_ARRAY = 1000
_FLOATS = {0: "float32", 1: "float16", 32: "bfloat16"}
# general.file_type, as llama.cpp's enum llama_ftype numbers it.
_QUANTIZATIONS = {
    **{2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L"},
    **{14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S"},
    **{22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M"},
    **{30: "IQ4_XS", 31: "IQ1_M", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4"},
}
# Tensor type → (elements in a block, bytes of a block), as ggml's type traits have them.
_BLOCKS = {
    **{0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36)},
    **{10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292)},
    **{16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82)},
    **{23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2)},
    **{34: (256, 54), 35: (256, 66), 39: (32, 17)},
}
_EMBEDDERS = {
    "bert",
    "eurobert",
    "gemma-embedding",
    "jina-bert-v2",
    "jina-bert-v3",
    "modern-bert",
    "neo-bert",
    "nomic-bert",
    "nomic-bert-moe",
}
_POOLING_TASKS = {1: "feature-extraction", 2: "feature-extraction", 3: "feature-extraction", 4: "text-ranking"}


@dataclass(frozen=True, slots=True)
class Header:
    """The keys that describe the model, how many parameters this file holds, and how many tokens it knows."""

    keys: dict[str, Any]
    parameters: int
    vocabulary: int | None = None


def describe(folder: Folder) -> ModelInfo | None:
    headers = {path: read(folder.files[path], path) for path in folder.named(".gguf")}
    # A file with the architecture "clip" is the eye or ear of the model beside it.
    main = next((p for p, h in headers.items() if h.keys.get("general.architecture") != "clip"), None)
    if main is None:
        return None
    said, keys = card.read(folder), headers[main].keys
    for path in (path for path, header in headers.items() if "tokenizer.chat_template" in header.keys):
        folder.notes[path] = "holds a chat template (Jinja), which the engine renders with each request"
    architecture = text(keys.get("general.architecture"))
    task = _task(architecture, keys)
    file_type = keys.get("general.file_type", -1)
    return ModelInfo(
        task=task,
        format="gguf",
        framework="ggml",
        architecture=architecture,
        parameters=sum(headers[path].parameters for path in _parts(main, headers)) or None,
        dtype=_FLOATS.get(file_type),
        vocabulary=headers[main].vocabulary or whole(keys.get(f"{architecture}.vocab_size")),
        context_length=whole(keys.get(f"{architecture}.context_length")),
        embedding_dimension=whole(keys.get(f"{architecture}.embedding_length"))
        if task == "feature-extraction"
        else None,
        languages=tuple(keys.get("general.languages", ())) or said.languages,
        license=text(keys.get("general.license")) or said.license,
        quantization=_QUANTIZATIONS.get(file_type),
    )


def _task(architecture: str | None, keys: dict[str, Any]) -> str | None:
    if architecture is None:
        return None
    if pooled := _POOLING_TASKS.get(keys.get(f"{architecture}.pooling_type", 0)):
        return pooled
    return "feature-extraction" if architecture in _EMBEDDERS else "text-generation"


def _parts(main: str, headers: dict[str, Header]) -> list[str]:
    """A large model comes as name-00001-of-00003.gguf and so on."""
    split = re.fullmatch(r"(.*-)\d{5}(-of-\d{5}\.gguf)", main)
    if split is None:
        return [main]
    return [path for path in headers if path.startswith(split[1]) and path.endswith(split[2])]


def read(file: File, where: str) -> Header:
    """The header of one file. Raises InvalidInput for one that is broken."""
    with file.open() as stream:
        reader = _Reader(stream, file.size, where)
        if reader.take(4) != b"GGUF":
            raise broken(where, "it does not begin with GGUF")
        if (version := reader.number("I")) not in (2, 3):
            raise broken(where, f"its GGUF version {version} is none of 2 and 3")
        tensors, pairs = reader.count(24), reader.count(13)
        keys: dict[str, Any] = {}
        vocabulary = None
        for _ in range(pairs):
            key = reader.string()
            keys[key] = reader.value(reader.number("I"))
            if key == "tokenizer.ggml.tokens":
                vocabulary = reader.last_count or None
        known = {k: v for k, v in keys.items() if v is not None}
        return Header(known, _parameters(reader, tensors, keys), vocabulary)


def _parameters(reader: _Reader, tensors: int, keys: dict[str, Any]) -> int:
    total = end = 0
    for _ in range(tensors):
        reader.string()
        dims = reader.number("I")
        if dims > 8:
            raise broken(reader.where, f"a tensor claims {dims} dimensions")
        count = math.prod(reader.number("Q") for _ in range(dims))
        block, width = _BLOCKS.get(reader.number("I"), (1, 0))
        end = max(end, reader.number("Q") + count // block * width)
        total += count
    alignment = whole(keys.get("general.alignment")) or 32
    start = -(-reader.position // alignment) * alignment
    if tensors and start + end > reader.size:
        raise broken(reader.where, f"its tensors need {start + end} bytes, the file has {reader.size}")
    return total


class _Reader:
    """Little-endian values from a file; never reads or counts past its end."""

    def __init__(self, stream: BinaryIO, size: int, where: str) -> None:
        self._stream = stream
        self.size = size
        self.position = 0
        self.where = where
        self.last_count = 0  # of the array read last

    def take(self, length: int) -> bytes:
        self._advance(length)
        return self._stream.read(length)

    def number(self, code: str) -> Any:
        layout = struct.Struct(f"<{code}")
        return layout.unpack(self.take(layout.size))[0]

    def count(self, smallest: int) -> int:
        """A count of things that take at least `smallest` bytes each."""
        count: int = self.number("Q")
        if count * smallest > self.size - self.position:
            raise broken(self.where, f"it claims {count} entries, the file has {self.size} bytes")
        return count

    def string(self) -> str:
        """A string; of one that no model needs only the length is looked at."""
        length: int = self.number("Q")
        if length > _KEPT_STRING:
            self._skip(length)
            return ""
        return self.take(length).decode(errors="replace")

    def value(self, kind: int, *, depth: int = 0) -> Any:
        """A value; None for an array that is too long or too deep to describe a model."""
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY and depth < 4:
            return self._array(depth)
        if kind not in _SCALARS:
            raise broken(self.where, f"a value has the unknown type {kind}")
        return self.number(_SCALARS[kind])

    def _array(self, depth: int) -> list[Any] | None:
        kind = self.number("I")
        width = struct.calcsize(f"<{_SCALARS[kind]}") if kind in _SCALARS else 8
        count = self.count(width)
        if count > _KEPT_ARRAY and kind in _SCALARS:
            self._skip(count * width)
            return None
        values = []
        for number in range(count):
            value = self.value(kind, depth=depth + 1)
            if number < _KEPT_ARRAY:
                values.append(value)
        self.last_count = count
        return values if count <= _KEPT_ARRAY else None

    def _skip(self, length: int) -> None:
        self._advance(length)
        self._stream.seek(length, 1)

    def _advance(self, length: int) -> None:
        self.position += length
        if self.position > self.size:
            raise broken(self.where, f"it ends early: {self.size} bytes, {self.position} needed")
