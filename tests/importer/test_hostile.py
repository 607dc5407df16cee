"""A corpus of hostile models: each is refused with its own reason, and nothing of it is left in the store."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import os
import struct
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from modelyard.errors import InvalidInput, ModelyardError
from modelyard.importer.inspect import inspect, inspect_files
from modelyard.refs import Version
from modelyard.repository import ModelRepository
from modelyard.store import Cache, Memory, Store
from modelyard.store.objects import ObjectFile

from . import builders
from .builders import gguf, hostile, npy, safetensors, state, tarred, zipped
from .test_archives import lying_bomb


@pytest.fixture
def store() -> Store:
    return Memory()


@pytest.fixture
def repository(store: Store, tmp_path: Path) -> ModelRepository:
    return ModelRepository(store, cache=Cache(tmp_path / "cache"), inspect=inspect_files, user="ada")


@dataclass(frozen=True, slots=True)
class Named:
    """A file of a source that calls it whatever it likes."""

    path: str
    size: int = 2
    sha256: str | None = None

    def open(self) -> io.BufferedReader:
        return io.BufferedReader(io.BytesIO(b"{}"))

    def chunks(self) -> Iterator[bytes]:
        yield b"{}"


NAMES = {
    "../outside.json": "leaves its folder",
    "a/../../outside.json": "leaves its folder",
    "/etc/passwd": "leaves its folder",
    "a//b.json": "leaves its folder",
    "..\\outside.json": "can't be kept on every system",
    "C:outside.json": "can't be kept on every system",
    "aux.json": "can't be kept on every system",
    "a\nb.json": "can't be kept on every system",
    "a\0b.json": "can't be kept on every system",
    "trailing. ": "can't be kept on every system",
    "no-utf8-\udcff.json": "is not valid UTF-8",
}


@pytest.mark.parametrize("name", NAMES)
def test_names(repository: ModelRepository, store: Store, name: str) -> None:
    with pytest.raises(InvalidInput, match=NAMES[name]):
        repository.register("m", Version.parse("v1.0.0"), [Named("config.json"), Named(name)], {})
    assert list(store.objects("")) == []


def test_names_that_differ_by_case_alone(repository: ModelRepository, store: Store) -> None:
    with pytest.raises(InvalidInput, match="differ by case alone"):
        repository.register("m", Version.parse("v1.0.0"), [Named("a.json"), Named("A.json")], {})
    assert list(store.objects("")) == []


def links(folder: Path) -> None:
    (folder / "weights.bin").symlink_to("/etc/passwd")


def circle(folder: Path) -> None:
    (folder / "a").symlink_to("b")
    (folder / "b").symlink_to("a")


def folder_link(folder: Path) -> None:
    (folder / "inside").mkdir()
    (folder / "again").symlink_to("inside")


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "weights.bin")


def bytes_name(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.bin")).write_bytes(b"x")


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (links, "a link that leaves the folder"),
        (circle, "a link to nothing"),
        (folder_link, "a link to a folder"),
        (pipe, "not a regular file"),
        (bytes_name, "not valid UTF-8"),
    ],
)
def test_files_that_are_none(
    repository: ModelRepository, store: Store, tmp_path: Path, make: Callable[[Path], None], why: str
) -> None:
    model = builders.folder(tmp_path / "model", {"config.json": "{}"})
    make(model)
    with pytest.raises(InvalidInput, match=why):
        repository.register_model("m", "v1.0.0", model)
    assert list(store.objects("")) == []


def twice() -> bytes:
    """Two members of one name: one program finds the first, another the last."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("a/data.pkl", hostile(2))
        archive.writestr("a/data.pkl", b"\x80\x02}.")
    return out.getvalue()


def renamed_in_the_directory() -> bytes:
    data = zipped({"a/data.pkl": hostile(2), "a/version": b"3"})
    start = data.index(b"PK\x01\x02")
    return data[:start] + data[start:].replace(b"a/data.pkl", b"a/data.txt")


def directory_of_another() -> bytes:
    """Begins as one archive, ends as another."""
    return zipped({"a/data.pkl": hostile(2)})[:60] + zipped({"a/data.pkl": b"\x80\x02}."})


def smaller_than_it_is() -> bytes:
    data = bytearray(zipped({"a.txt": b"x" * 1000}))
    start = data.index(b"PK\x01\x02")
    data[start + 20 : start + 28] = struct.pack("<II", 10, 10)
    return bytes(data)


def deep(levels: int) -> bytes:
    data = hostile()
    for _ in range(levels):
        data = zipped({"a.zip": data})
    return data


TENSOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
FILES: dict[str, tuple[str, Callable[[], bytes | str], str]] = {
    "pickle": ("x.pkl", hostile, "asks for posix.system"),
    "renamed pickle": ("weights.safetensors", hostile, "asks for posix.system"),
    "pickle in an archive": (
        "x.tar.gz",
        lambda: tarred({"a": hostile()}, "w:gz"),
        "in a, compressed; it asks for posix.system",
    ),
    "pickle, compressed twice": ("x.txt", lambda: gzip.compress(bz2.compress(hostile())), "posix.system"),
    "two members of a name": ("x.bin", twice, "two members are called 'a/data.pkl'"),
    "another name in the directory": ("x.bin", renamed_in_the_directory, "damaged"),
    "another archive's directory": ("x.bin", directory_of_another, "leaves out what it begins with"),
    "another size in the directory": ("x.zip", smaller_than_it_is, "damaged"),
    "archives without end": ("x.zip", lambda: deep(6), "deeper than 4"),
    "bomb": ("x.zip", lying_bomb, "is a zip bomb"),
    "safetensors of gigabytes": ("m.safetensors", lambda: safetensors({}, length=1 << 40), "claims 1099511627776"),
    "safetensors, cut": ("m.safetensors", lambda: safetensors({"a": TENSOR}, b"\0" * 4), "4 are there"),
    "safetensors, deep": ("m.safetensors", lambda: safetensors(b'{"a":' * 100_000), "not valid JSON"),
    "gguf of gigabytes": ("m.gguf", lambda: b"GGUF" + struct.pack("<IQQ", 3, 1 << 50, 0), "claims"),
    "gguf, cut": ("m.gguf", lambda: gguf({"a": "b"}, {"w": (64,)}, data=8), "need"),
    "onnx of gigabytes": ("m.onnx", lambda: b"\x3a\xff\xff\xff\xff\x0f", "claims 4294967295 bytes"),
    "npy, cut": ("m.npy", lambda: npy([1.0])[:20], "ends early"),
    "npy of code": ("m.npy", lambda: npy([1.0]).replace(b"'<f8'", b"f()  "), "malformed"),
    "torch, cut": ("m.pt", lambda: state()[:-40], "damaged"),
    "huge configuration": ("config.json", lambda: "[" + " " * (17 << 20) + "]", "longer than 16 MB"),
    "deep configuration": ("config.json", lambda: '{"a":' * 100_000, "not valid JSON"),
    "endless number": ("config.json", lambda: '{"vocab_size": ' + "9" * 10_000 + "}", "not valid JSON"),
    "index that leaves": (
        "model.safetensors.index.json",
        lambda: json.dumps({"weight_map": {"a": "../../etc/passwd"}}),
        "not there",
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_files(repository: ModelRepository, store: Store, tmp_path: Path, case: str) -> None:
    name, make, why = FILES[case]
    model = builders.folder(tmp_path / "model", {"ok.bin": state(), name: make()})
    with pytest.raises(InvalidInput, match=rf"(?s){name.replace('.', '[.]')}.*({why})"):
        repository.register_model("m", "v1.0.0", model)
    assert list(store.objects("")) == []


@pytest.mark.parametrize("case", ["pickle", "another archive's directory", "gguf, cut", "torch, cut"])
def test_the_same_is_found_where_files_lie_in_a_store(case: str) -> None:
    name, make, why = FILES[case]
    far, data = Memory(), make()
    content = data.encode() if isinstance(data, str) else data
    far.put("x", content)
    repository = ModelRepository(Memory(), cache=Cache(Path("unused")), inspect=inspect_files, user="ada")
    with pytest.raises(InvalidInput, match=f"(?s){why}"):
        repository.register("m", Version.parse("v1.0.0"), [ObjectFile(far, "x", name, len(content))], {})
    assert list(repository.storage.objects("")) == []


def test_a_source_that_shows_one_thing_and_sends_another_leaves_nothing(
    repository: ModelRepository, store: Store
) -> None:
    class Changing(Named):
        def chunks(self) -> Iterator[bytes]:
            yield b"\x80\x02cos\nsystem\n."

    with pytest.raises(ModelyardError, match=r"x\.json|not what they were"):
        repository.register("m", Version.parse("v1.0.0"), [Changing("x.json")], {})
    assert not [found.key for found in store.objects("") if found.key.startswith(("models/", "versions/"))]


ALIASES = "\n".join(
    [
        "a: &a [x,x,x,x,x,x,x,x,x]",
        *(f"{k}: &{k} [{','.join([f'*{p}'] * 9)}]" for p, k in zip("abcdefgh", "bcdefghi", strict=True)),
    ]
)


@pytest.mark.parametrize(
    "front", [f"{ALIASES}\nlanguage: *i", "[" * 60_000, "{a: " * 15_000, "? " * 20_000, "- " * 30_000, "&a [*a]"]
)
def test_bombs_in_model_cards_say_nothing(tmp_path: Path, front: str) -> None:
    builders.folder(tmp_path, {"README.md": f"---\n{front}\n---\n", "config.json": '{"model_type": "bert"}'})
    assert inspect(tmp_path).model.license is None
