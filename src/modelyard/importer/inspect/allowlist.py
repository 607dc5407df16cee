"""What a pickle may ask for and still be data: the functions and types that rebuild tensors, arrays and containers.

Everything else is refused, whatever it is called and however it is reached; a list of what is bad could never be
complete. Those of torch are among what `torch.load(weights_only=True)` takes by itself. Arguments are looked at where
the wrong ones would cost memory or forge numpy's own bookkeeping. Knows names, runs nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["text", "number", "bytes", "list", "dict", "set", "tuple", "global", "object", "storage", "other"]


@dataclass(slots=True)
class Value:
    """What an unpickler would hold, as far as it matters: `detail` is the text, the number, the items of a tuple, the
    name of a global, or the maker of an object. An object gets its state once."""

    kind: Kind
    detail: Any = None
    made_of: tuple[Value, ...] = ()
    built: bool = False


Arguments = Sequence[Value]

_ELEMENTS = ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
_DTYPES = (
    *("float64", "float32", "float16", "bfloat16", "complex64", "complex128", "bool"),
    *("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"),
    *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"),
)

# Named as arguments only: never called.
STORAGES = frozenset(
    {f"torch.{where}{kind}Storage" for kind in _ELEMENTS for where in ("", "cuda.")}
    | {"torch.ComplexDoubleStorage", "torch.ComplexFloatStorage"}
    | {"torch.storage.UntypedStorage", "torch.storage.TypedStorage"}
)
VALUES = STORAGES | {f"torch.{name}" for name in _DTYPES} | {"numpy.ndarray"}

_PLAIN_DTYPE = re.compile(r"[<>|=]?[biufcSU?]\d{0,9}")
_OBJECT_DTYPE = re.compile(r"\|?O8?")


def _any(arguments: Arguments) -> bool:  # noqa: ARG001 - harmless with whatever it is given
    return True


def _encoded(arguments: Arguments) -> bool:
    """Protocols before 3 have no bytes: they are written as text and an encoding."""
    return len(arguments) == 2 and [a.kind for a in arguments] == ["text", "text"] and _is_latin(arguments[1])


def _is_latin(value: Value) -> bool:
    return value.kind == "text" and value.detail in ("latin1", "latin-1")


def _bytearray(arguments: Arguments) -> bool:
    """Of bytes; a mere number would be a length, and any length at all."""
    return not arguments or arguments[0].kind in ("bytes", "object") or _encoded(arguments)


def _array(arguments: Arguments) -> bool:
    """numpy writes an empty array, which its state then fills."""
    match [(a.kind, a.detail) for a in arguments]:
        case [("global", "numpy.ndarray"), ("tuple", (Value(kind="number", detail=0),)), (("bytes" | "object"), _)]:
            return True
    return False


def _dtype(arguments: Arguments) -> bool:
    """Only plain numbers, texts and objects: fields could be described so that bytes are taken for addresses."""
    match [(a.kind, a.detail) for a in arguments]:
        case [("text", text), ("number", False), ("number", True)]:  # a copy of its own, not the one all share
            return bool(_PLAIN_DTYPE.fullmatch(text) or _OBJECT_DTYPE.fullmatch(text))
    return False


def _scalar(arguments: Arguments) -> bool:
    kinds = [(a.kind, a.detail) for a in arguments]
    return len(kinds) == 2 and kinds[0] == ("object", "numpy.dtype") and kinds[1][0] in ("bytes", "object")


def _buffer(arguments: Arguments) -> bool:
    """How protocol 5 writes an array: bytes, dtype, shape, order."""
    match [(a.kind, a.detail) for a in arguments]:
        case [("bytes" | "object", _), ("object", "numpy.dtype"), ("tuple", _), ("text", _)]:
            return not _of_objects(arguments[1])
    return False


def _of_objects(dtype: Value) -> bool:
    return _OBJECT_DTYPE.fullmatch(dtype.made_of[0].detail) is not None


CALLABLE: dict[str, Callable[[Arguments], bool]] = {
    "collections.OrderedDict": _any,
    "collections.Counter": _any,
    "_codecs.encode": _encoded,
    **{f"{module}.{name}": _any for module in ("builtins", "__builtin__") for name in ("set", "frozenset", "complex")},
    **{f"{module}.bytearray": _bytearray for module in ("builtins", "__builtin__")},
    **{f"torch._utils._rebuild_{name}": _any for name in ("tensor", "tensor_v2", "tensor_v3", "parameter")},
    "torch.Size": _any,
    "torch.device": _any,
    "numpy.dtype": _dtype,
    **{f"numpy.{core}.multiarray._reconstruct": _array for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _buffer for core in ("core", "_core")},
}


def state_fits(target: Value, state: Value) -> bool:
    """Whether an object may be given this state. Two names of one object give it two states, so only the first."""
    if target.kind != "object" or target.built:
        return False
    if target.detail in ("collections.OrderedDict", "collections.Counter"):
        return state.kind == "dict"
    if target.detail == "numpy.dtype":
        return _dtype_state(target, state)
    return target.detail.endswith(".multiarray._reconstruct") and _array_state(state)


def _dtype_state(target: Value, state: Value) -> bool:
    """(version, byte order, no subarray, no names, no fields, size, alignment, flags); the flags say what is an
    address."""
    fields = [item.detail for item in state.detail] if state.kind == "tuple" else []
    if len(fields) != 8 or fields[0] != 3 or fields[2:5] != [None, None, None]:
        return False
    kind = target.made_of[0].detail
    if _of_objects(target):
        return fields[5:] == [-1, -1, 63]
    if "S" in kind or "U" in kind:
        return isinstance(fields[5], int) and fields[5] >= 0 and fields[6:] in ([1, 0], [4, 8])
    return fields[5:] == [-1, -1, 0]


def _array_state(state: Value) -> bool:
    """(version, shape, dtype, in Fortran's order, bytes or a list of objects)"""
    if state.kind != "tuple" or len(state.detail) != 5:
        return False
    version, shape, dtype, _, data = state.detail
    return (
        version.kind == "number"
        and shape.kind == "tuple"
        and all(length.kind == "number" for length in shape.detail)
        and (dtype.kind, dtype.detail) == ("object", "numpy.dtype")
        and data.kind in (("list",) if _of_objects(dtype) else ("bytes", "object"))
    )


def is_storage(value: Value) -> bool:
    """torch names a tensor's numbers by a tuple: ("storage", type, key, location, count)."""
    if value.kind != "tuple" or len(value.detail) < 5:
        return False
    word, kind = value.detail[:2]
    return word.detail == "storage" and kind.kind == "global" and kind.detail in STORAGES
