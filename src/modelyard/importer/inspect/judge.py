"""Whether what lies in a pickle is data: the allow-list first, then fickling as a second opinion where it is installed.

Both only read. Whatever the allow-list lets pass must also look harmless to fickling; what it refuses, fickling can't
bring back.
"""

from __future__ import annotations

import io
from collections.abc import Iterable

from modelyard.importer.inspect import machine
from modelyard.importer.inspect.machine import NotAllowed

_LONGEST = 64 << 20  # of one argument
_KEPT = 4 << 20  # for the second opinion
# How torch began its files before it made them zips: five pickles, then the tensors' raw bytes.
_LEGACY_TORCH = ((0x1950A86A20F9469CFC6C, 1001), 5)


def refusal(stream: io.BufferedIOBase) -> str | None:
    """Why the pickles that a stream consists of are more than data; None if they are not."""
    source = _Source(stream)
    made: list[object] = []
    try:
        while not made or not source.ended():
            made.append(machine.run(source).detail)
            if tuple(made[:2]) == _LEGACY_TORCH[0] and len(made) == _LEGACY_TORCH[1]:
                break
    except NotAllowed as why:
        return f"bytes follow it that are no pickle of weights: {why}" if made else str(why)
    return _second_opinion(source.kept)


def scanners() -> dict[str, str]:
    """The libraries that give a second opinion here, and their versions."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return {"fickling": version("fickling")}
    except PackageNotFoundError:
        return {}


class _Source:
    """Reads for the opcodes: bounded, and keeping what was read for the second opinion."""

    def __init__(self, stream: io.BufferedIOBase) -> None:
        self._stream = stream
        self._next = b""
        self.kept: bytearray | None = bytearray()

    def read(self, size: int, /) -> bytes:
        if size > _LONGEST:
            raise NotAllowed(f"it holds a value of {size} bytes")
        data = self._next[:size]
        self._next = self._next[size:]
        if len(data) < size:
            data += self._stream.read(size - len(data))
        return self._keep(data)

    def readline(self) -> bytes:
        line, newline, self._next = self._next.partition(b"\n")
        line += newline or self._stream.readline(_LONGEST)
        return self._keep(line)

    def ended(self) -> bool:
        """Whether nothing but white space is left."""
        while not self._next.strip():
            self._next = self._stream.read(1 << 16)
            if not self._next:
                return True
        return False

    def _keep(self, data: bytes) -> bytes:
        if self.kept is not None and len(self.kept) + len(data) <= _KEPT:
            self.kept += data
        else:
            self.kept = None
        return data


def _second_opinion(data: bytearray | None) -> str | None:
    """What fickling holds against it; None if nothing, if it is not installed, or if there is too much to look at."""
    if data is None:
        return None
    try:
        from fickling import analysis
        from fickling.fickle import StackedPickle
    except ImportError:
        return None
    looks: Iterable[analysis.Analysis] = (
        analysis.DuplicateProtoAnalysis(),
        analysis.InvalidOpcode(),
        analysis.ResourceExhaustionAnalysis(),
        analysis.ScannerDeactivation(),
        analysis.UnsafeImports(),
        analysis.UnsafeImportsML(),
        analysis.BadCalls(),
    )
    analyzer = analysis.Analyzer(looks)
    try:
        found = [result for each in StackedPickle.load(bytes(data)) for result in analyzer.analyze(each).results]
    except NotImplementedError:
        return None  # opcodes of old protocols that it doesn't follow: no opinion
    except Exception as error:  # whatever it stumbles over, it has not called it harmless
        return f"fickling can't read it ({type(error).__name__})"
    worst = max(found, key=lambda result: result.severity, default=None)
    # A result counts as False when it found something.
    return None if worst is None or worst.severity == analysis.Severity.LIKELY_SAFE else f"fickling says: {worst}"
