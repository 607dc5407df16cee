"""What a version's metadata may declare under `serving`; knows the values, not what is done with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from modelyard.errors import InvalidInput

Precision = Literal["fp32", "bf16", "int8"]
Backend = Literal["torch", "onnx"]
_KNOWN = {"precision": get_args(Precision), "backend": get_args(Backend)}


def check_serving(metadata: Mapping[str, Any]) -> None:
    """Raises InvalidInput for a value that no model server knows."""
    serving = metadata.get("serving")
    if serving is None:
        return
    if not isinstance(serving, Mapping):
        raise InvalidInput(f"serving can't be {serving!r} in the metadata", remedy="write serving.precision=int8")
    for key, known in _KNOWN.items():
        value = serving.get(key)
        if value is not None and value not in known:
            raise InvalidInput(
                f"serving.{key} can't be {value!r} in the metadata", remedy=f"use one of {', '.join(known)}"
            )
