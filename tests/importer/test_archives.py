"""Archives that are damaged, or made to cost more than they weigh."""

from __future__ import annotations

import gzip
import io
import lzma
import random
import resource
import struct
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from modelyard.errors import InvalidInput
from modelyard.importer.inspect import inspect

from . import builders
from .builders import npy, state, tarred, zipped


def layered_bomb() -> bytes:
    layer = zipped({"zeros": b"\0" * (100 << 20)}, compression=zipfile.ZIP_DEFLATED)
    members = {f"{n}.zip": layer for n in range(40)}
    return zipped(members, compression=zipfile.ZIP_DEFLATED)


def lying_bomb() -> bytes:
    """The same bytes under many names, as an overlapping bomb has them."""
    data = bytearray(zipped({"zeros": b"\0" * (64 << 20)}, compression=zipfile.ZIP_DEFLATED))
    start = data.index(b"PK\x01\x02")
    entry = data[start : data.index(b"PK\x05\x06")]
    return bytes(
        data[:start] + entry * 500 + struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 500, 500, len(entry) * 500, start, 0)
    )


def long_name_tar() -> bytes:
    """A tar header that claims a name of two gigabytes."""
    header = bytearray(tarred({"x": b""})[:512])
    header[156:157] = b"L"
    header[124:136] = b"17777777777\0"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return gzip.compress(bytes(header) + b"\0" * (200 << 20))


def tar_of_zeros() -> bytes:
    """A small file that unfolds into more than may be looked at."""
    out = io.BytesIO()
    with gzip.open(out, "wb", 1) as stream:
        stream.write(tarred({"a": b"hello"})[:1024])
        info = tarfile.TarInfo("b")
        info.size = 2 << 30
        stream.write(info.tobuf())
        for _ in range(1100):
            stream.write(bytes(1 << 20))
    return out.getvalue()


@contextmanager
def cheaply() -> Iterator[None]:
    """Ten seconds and half a gigabyte at most."""
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    yield
    assert time.monotonic() - started < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 512 << 10  # KiB


@pytest.mark.parametrize("make", [lying_bomb, long_name_tar, tar_of_zeros])
def test_bombs_are_refused_cheaply(tmp_path: Path, make: Callable[[], bytes]) -> None:
    builders.folder(tmp_path, {"model.zip": make()})
    with cheaply(), pytest.raises(InvalidInput, match=r"model\.zip"):
        inspect(tmp_path)


def test_a_bomb_in_layers_is_passed_over_cheaply(tmp_path: Path) -> None:
    """Four gigabytes of zeros: only the beginning of each member is unfolded."""
    builders.folder(tmp_path, {"model.zip": layered_bomb()})
    with cheaply():
        assert inspect(tmp_path).pickles == {}


def test_a_zip_that_would_drown_a_loader_is_refused(tmp_path: Path) -> None:
    builders.folder(tmp_path, {"model.zip": lying_bomb()})
    with pytest.raises(InvalidInput, match=r"model\.zip is a zip bomb"):
        inspect(tmp_path)


def nested(depth: int) -> bytes:
    data = b"hello"
    for _ in range(depth):
        data = zipped({"a.zip": data})
    return data


DAMAGED = {
    "cut.zip": zipped({"a": b"x" * 1000})[:600],
    "cut.pt": state()[:-30],
    "cut.gz": gzip.compress(random.Random(1).randbytes(1000))[:500],
    "cut.xz": lzma.compress(random.Random(1).randbytes(1000))[:500],
    "cut.tar": tarred({"a": b"x" * 5000})[:2000],
    "deep.zip": nested(12),
    "cut.npy": npy(np.zeros(2))[:40],
    "no-version.npy": b"\x93NUMPY",
    "malformed.npy": npy(np.zeros(2)).replace(b"descr", b"xescr"),
    "wrong-crc.zip": zipped({"a": b"x" * 100}).replace(b"x" * 100, b"y" * 100),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_archives_are_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match=name):
        inspect(builders.folder(tmp_path, {name: DAMAGED[name]}))


def test_an_encrypted_archive_is_named(tmp_path: Path) -> None:
    data = bytearray(zipped({"a": b"x" * 100}))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(InvalidInput, match=r"a\.zip.*encrypted"):
        inspect(builders.folder(tmp_path, {"a.zip": bytes(data)}))


def test_zlib_streams_that_unfold_without_end_cost_little(tmp_path: Path) -> None:
    builders.folder(tmp_path, {"zeros.z": zlib.compress(b"\0" * (200 << 20))})
    started = time.monotonic()
    assert inspect(tmp_path).pickles == {}
    assert time.monotonic() - started < 1
