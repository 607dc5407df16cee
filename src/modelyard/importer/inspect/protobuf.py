"""Protobuf messages read where they lie in a file: numbers are decoded, everything else is a stretch of the file.

Encoding: https://protobuf.dev/programming-guides/encoding. Knows no message; every length is checked before it is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from modelyard.importer.inspect.folder import broken

_TEXT_LIMIT = 64 << 10
_PIECE = 1 << 20


@dataclass(slots=True)
class Source:
    """The file, and how many more fields may be read of it: a hostile one can hold a billion empty ones."""

    stream: BinaryIO
    where: str
    fields_left: int = 2_000_000

    def count_field(self) -> None:
        self.fields_left -= 1
        if self.fields_left < 0:
            raise broken(self.where, "it has more parts than any model")


@dataclass(frozen=True, slots=True)
class Message:
    """A stretch of the file that holds a protobuf message, a string or packed numbers: which, its reader knows."""

    file: Source
    start: int
    end: int

    def fields(self) -> Iterator[tuple[int, int | Message]]:
        """(field number, number or stretch) in order; each stretch lies within this one."""
        position = self.start
        while position < self.end:
            self.file.count_field()
            key, position = self._varint(position)
            number, wire = key >> 3, key & 7
            if wire == 0:
                value, position = self._varint(position)
                yield number, value
                continue
            if wire == 2:
                length, position = self._varint(position)
            elif wire in (1, 5):
                length = 8 if wire == 1 else 4
            else:
                raise broken(self.file.where, "it is not a protobuf message")
            if length > self.end - position:
                raise broken(self.file.where, f"it ends early: a field claims {length} bytes")
            if wire == 2:
                yield number, Message(self.file, position, position + length)
            position += length

    def messages(self, wanted: int) -> Iterator[Message]:
        return (value for number, value in self.fields() if number == wanted and isinstance(value, Message))

    def numbers(self) -> list[int]:
        """Packed numbers."""
        if self.end - self.start > _TEXT_LIMIT:
            raise broken(self.file.where, "an initializer has an impossible shape")
        values, position = [], self.start
        while position < self.end:
            value, position = self._varint(position)
            values.append(value)
        return values

    def mentions(self, word: bytes) -> bool:
        """Whether the bytes of a word lie anywhere in the stretch."""
        self.file.stream.seek(self.start)
        left, tail = self.end - self.start, b""
        while left > 0 and (piece := self.file.stream.read(min(left, _PIECE))):
            if word in tail + piece:
                return True
            left, tail = left - len(piece), piece[1 - len(word) :]
        return False

    def text(self) -> str:
        self.file.stream.seek(self.start)
        return self.file.stream.read(min(self.end - self.start, _TEXT_LIMIT)).decode(errors="replace")

    def _varint(self, position: int) -> tuple[int, int]:
        """The number at a position, and the position behind it."""
        self.file.stream.seek(position)
        value = 0
        for shift, byte in enumerate(self.file.stream.read(min(10, self.end - position))):
            value |= (byte & 0x7F) << (7 * shift)
            if byte < 0x80:
                return value, position + shift + 1
        raise broken(self.file.where, "it is not a protobuf message")
