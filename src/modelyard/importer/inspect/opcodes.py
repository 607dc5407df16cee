"""Whether bytes begin a pickle, told from its opcodes without running any of them.

A pickle of protocol 2 or later usually begins with its protocol; older ones begin with any opcode, as text may too. So
the opcodes are followed on an empty stack until they call something, end, or make no sense.
"""

from __future__ import annotations

import io
import pickletools
import re
from collections.abc import Iterator
from typing import IO, Any, Protocol, cast

WINDOW = 256 << 10
_MOST_OPCODES = 2_000
_LONGEST_ARGUMENT = 4 << 20
_CALLS = {"REDUCE", "BUILD", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX"}
_BY_CODE = {opcode.code: opcode for opcode in pickletools.opcodes}
_INTEGER = r"\s*[+-]?(0[xX][\da-fA-F_]+|0[oObB][\d_]+|\d[\d_]*)"
_INDEX = re.compile(r"\s*\+?\d+\s*")
_LINES = {
    "INT": re.compile(rf"{_INTEGER}\s*"),
    "LONG": re.compile(rf"{_INTEGER}[lL]?\s*"),
    "FLOAT": re.compile(r"\s*[+-]?(inf(inity)?|nan|(?=\.?\d)[\d_]*\.?[\d_]*(e[+-]?\d+)?)\s*", re.I),
    "STRING": re.compile(r"""(['"]).*\1\s*"""),
    "GET": _INDEX,
    "PUT": _INDEX,
}
_GLOBAL = re.compile(r"\S+ \S+")  # a module and a name in it


def reason(head: bytes) -> str | None:
    """Why the bytes are taken for a pickle, or None. `head` is the first WINDOW bytes, or all there are."""
    if not head:
        return None
    modern = head[0] == 0x80 and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    if not _follow(head, enough=3 if modern else _MOST_OPCODES):
        return None
    return f"pickle, protocol {head[1]}" if modern else "pickle, protocol 0 or 1"


def _follow(head: bytes, *, enough: int) -> bool:
    """True once the opcodes call something, end with the data, fill the window, or `enough` of them made sense."""
    stack: list[Any] = []
    stream = _Window(head)
    seen = 0
    try:
        while True:
            for opcode, argument in read(stream):
                seen += 1
                if not _step(stack, opcode, argument):
                    return False
                if opcode.name in _CALLS or seen == enough:
                    return True
            stack.clear()  # another pickle may follow the first
            if not head[stream.tell() :].strip():
                return True
    except ValueError:
        runs_over = len(head) == WINDOW == stream.tell() and stream.asked <= _LONGEST_ARGUMENT
        # A first line longer than the window is text, short of the two opcodes that take any line.
        return runs_over and (seen > 0 or stream.asked > 1 or head.startswith((b"V", b"S'", b'S"')))


def read(stream: Stream) -> Iterator[tuple[pickletools.OpcodeInfo, Any]]:
    """As pickletools.genops, but taking every argument that some unpickler takes, lines as they stand there.

    A pickle that only pickletools finds wrong must not pass for something else. Raises ValueError at what is no opcode.
    """
    name = ""
    while name != "STOP":
        opcode = _BY_CODE.get(stream.read(1).decode("latin-1"))
        if opcode is None:
            raise ValueError("no opcode")
        name = opcode.name
        if opcode.arg is None:
            yield opcode, None
        elif opcode.arg.n != pickletools.UP_TO_NEWLINE:
            yield opcode, opcode.arg.reader(cast(IO[bytes], stream))
        elif name in ("GLOBAL", "INST"):
            yield opcode, f"{_line(stream)} {_line(stream)}"
        else:
            line = _line(stream)
            if name in _LINES and not _LINES[name].fullmatch(line):
                raise ValueError("no argument")
            yield opcode, line


def _line(stream: Stream) -> str:
    line = stream.readline()
    if not line.endswith(b"\n"):
        raise ValueError("no line")
    return line[:-1].decode("latin-1")


class Stream(Protocol):
    """Where opcodes are read from."""

    def read(self, size: int, /) -> bytes: ...
    def readline(self) -> bytes: ...


class _Window(io.BytesIO):
    """Remembers how many bytes were asked for last: weights taken for opcodes ask for absurd numbers."""

    asked = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.asked = size or 0
        return super().read(size)


def _step(stack: list[Any], opcode: pickletools.OpcodeInfo, argument: Any) -> bool:
    """Carry out what an opcode does to the stack; False where an unpickler would fail."""
    if opcode.name in ("GLOBAL", "INST") and not _GLOBAL.fullmatch(argument):
        return False
    mark = pickletools.markobject
    before = opcode.stack_before
    if mark in before:
        if mark not in stack:
            return False
        while stack.pop() is not mark:
            pass
        before = before[: before.index(mark)]
    if len(before) > len(stack):
        return False
    del stack[len(stack) - len(before) :]
    stack.extend(opcode.stack_after)
    return True
