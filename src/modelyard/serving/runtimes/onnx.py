"""ONNX models through ONNX Runtime on the CPU. The signature is the graph's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modelyard.errors import InvalidInput, MissingExtra
from modelyard.repository.manifest import Datatype, ModelVersion, Signature, Tensor
from modelyard.serving.cores import usable_cores
from modelyard.serving.protocol import Arrays
from modelyard.serving.runtimes import only_file

try:
    import onnxruntime
except ImportError as error:
    raise MissingExtra("onnxruntime", "serve") from error

_SMALL = 256 * 1024  # bytes
_DATATYPES: dict[str, Datatype] = {
    "tensor(bool)": "BOOL",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}


class OnnxRuntime:
    platform = "onnxruntime_onnx"

    def __init__(self, session: Any) -> None:
        self._session = session
        self.signature = Signature(
            tuple(_tensor(value) for value in session.get_inputs()),
            tuple(_tensor(value) for value in session.get_outputs()),
        )
        self._names = [tensor.name for tensor in self.signature.outputs]

    def infer(self, inputs: Arrays) -> Arrays:
        return dict(zip(self._names, self._session.run(self._names, inputs), strict=True))


def load(version: ModelVersion, folder: Path) -> OnnxRuntime:
    path = only_file(folder, (".onnx",))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1 if _is_small(folder) else usable_cores()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    # onnxruntime's exceptions share no base below Exception.
    except Exception as error:
        raise InvalidInput(
            f"{path.name} of {version.name}:{version.version} can't be loaded: {str(error).strip().splitlines()[0]}"
        ) from error
    return OnnxRuntime(session)


def _is_small(folder: Path) -> bool:
    """Making threads for such a model takes forty times as long as the rest of its loading, and gains nothing."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < _SMALL


def _tensor(value: Any) -> Tensor:
    if value.type not in _DATATYPES:
        raise InvalidInput(
            f"{value.name!r} of the ONNX model is a {value.type}", remedy="only plain tensors are served"
        )
    shape = tuple(length if isinstance(length, int) else -1 for length in value.shape)
    return Tensor(value.name, _DATATYPES[value.type], shape)
