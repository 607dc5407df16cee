"""safetensors: eight bytes of header length, a JSON header, then the tensors' bytes without gaps.

Format: https://huggingface.co/docs/safetensors. Only headers are read; lengths are checked before anything is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from modelyard.importer.inspect import card
from modelyard.importer.inspect.folder import Folder, broken, parse_json
from modelyard.repository.manifest import ModelInfo

_HEADER_LIMIT = 100_000_000
_DTYPES = {
    "F64": ("float64", 64),
    "F32": ("float32", 32),
    "F16": ("float16", 16),
    "BF16": ("bfloat16", 16),
    "F8_E4M3": ("float8_e4m3", 8),
    "F8_E5M2": ("float8_e5m2", 8),
    "F8_E4M3FNUZ": ("float8_e4m3fnuz", 8),
    "F8_E5M2FNUZ": ("float8_e5m2fnuz", 8),
    "F8_E8M0": ("float8_e8m0", 8),
    "F6_E2M3": ("float6_e2m3", 6),
    "F6_E3M2": ("float6_e3m2", 6),
    "F4": ("float4", 4),
    "I64": ("int64", 64),
    "I32": ("int32", 32),
    "I16": ("int16", 16),
    "I8": ("int8", 8),
    "U64": ("uint64", 64),
    "U32": ("uint32", 32),
    "U16": ("uint16", 16),
    "U8": ("uint8", 8),
    "C64": ("complex64", 64),
    "BOOL": ("bool", 8),
}


@dataclass(frozen=True, slots=True)
class Weights:
    """Parameters by dtype, over one or more files."""

    by_dtype: Counter[str]
    framework: str | None = None

    @property
    def parameters(self) -> int | None:
        return sum(self.by_dtype.values()) or None

    @property
    def dtype(self) -> str | None:
        """The dtype most parameters have."""
        return self.by_dtype.most_common(1)[0][0] if self.by_dtype else None


def describe(folder: Folder) -> ModelInfo | None:
    paths = main_files(folder) or folder.named(".safetensors")
    if not paths:
        return None
    weights, said = read(folder, paths), card.read(folder)
    return ModelInfo(
        task=said.task,
        format="safetensors",
        framework=weights.framework,
        parameters=weights.parameters,
        dtype=weights.dtype,
        languages=said.languages,
        license=said.license,
    )


def main_files(folder: Folder, within: str = "") -> list[str]:
    """The files that make up one model: those of the index, else model.safetensors, else all of the folder itself.

    A folder may hold the same weights twice, in another split or precision; they count once.
    """
    prefix = f"{within}/" if within else ""
    here = [path for path in folder.named(".safetensors") if path.rpartition("/")[0] == within]
    index = folder.object(f"{prefix}model.safetensors.index.json").get("weight_map")
    if isinstance(index, dict):
        shards = {f"{prefix}{name}" for name in index.values()}
        if missing := sorted(shards - set(here)):
            raise broken(f"{prefix}model.safetensors.index.json", f"it names {missing[0]}, which is not there")
        return sorted(shards)
    whole = f"{prefix}model.safetensors"
    return [whole] if whole in here else here


def read(folder: Folder, paths: Iterable[str]) -> Weights:
    """The parameters of these files. Raises InvalidInput for a broken one."""
    total: Counter[str] = Counter()
    frameworks = set()
    for path in paths:
        header = _header(folder, path)
        metadata = header.pop("__metadata__", None)
        frameworks.add({"pt": "pytorch", "tf": "tensorflow", "flax": "flax", "mlx": "mlx"}.get(_format(metadata)))
        for tensor in header.values():
            total[_DTYPES[tensor["dtype"]][0]] += _count(tensor["shape"])
    return Weights(total, frameworks.pop() if len(frameworks) == 1 else None)


def check(folder: Folder, path: str) -> None:
    """Raises InvalidInput when the file is not sound."""
    _header(folder, path)


def _format(metadata: Any) -> str:
    return str(metadata.get("format")) if isinstance(metadata, dict) else ""


def _header(folder: Folder, path: str) -> dict[str, Any]:
    file = folder.files[path]
    size = file.size
    with file.open() as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > min(size - 8, _HEADER_LIMIT):
            raise broken(path, f"its header claims {length} bytes, the file has {size}")
        header = parse_json(stream.read(length), path)
    if not isinstance(header, dict):
        raise broken(path, "its header is not a JSON object")
    tensors = {name: tensor for name, tensor in header.items() if name != "__metadata__"}
    spans = sorted(_span(tensor, f"{path}, tensor {name[:80]!r},") for name, tensor in tensors.items())
    end = 0
    for start, stop in spans:
        if start != end:
            raise broken(path, "its tensors overlap or leave gaps")
        end = stop
    if end != size - 8 - length:
        raise broken(path, f"its tensors need {end} bytes, {size - 8 - length} are there")
    return header


def _span(tensor: Any, where: str) -> tuple[int, int]:
    """(begin, end) of one tensor's bytes, agreeing with its dtype and shape."""
    match tensor:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(begin), int(end)]}:
            if dtype not in _DTYPES:
                raise broken(where, f"its dtype {dtype[:20]!r} is unknown")
            if not all(type(dim) is int and 0 <= dim < 1 << 63 for dim in shape):
                raise broken(where, "its shape is not a list of lengths")
            if not 0 <= begin <= end or (_count(shape) * _DTYPES[dtype][1] + 7) // 8 != end - begin:
                raise broken(where, "its offsets do not fit its shape")
            return begin, end
    raise broken(where, "it has no dtype, shape and data_offsets")


def _count(shape: list[int]) -> int:
    count = 0 if 0 in shape else 1
    for dim in shape:
        count *= dim
        if count >= 1 << 63:  # more than any file holds; a long list of large lengths would take hours
            break
    return count
