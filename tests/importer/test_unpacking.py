"""Archives of models: unpacked and registered as a folder, or refused with nothing left behind."""

from __future__ import annotations

import errno
import io
import os
import stat
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from modelyard.errors import InvalidInput
from modelyard.importer import ModelImporter, archives
from modelyard.importer.inspect import inspect_files
from modelyard.repository import ModelRepository
from modelyard.store import Cache, Memory

from . import builders

MODEL = builders.safetensors({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, bytes(8))
FILES = {"model.safetensors": MODEL, "1_Pooling/config.json": b"{}"}


@pytest.fixture
def repository(tmp_path: Path) -> ModelRepository:
    return ModelRepository(Memory(), cache=Cache(tmp_path / "cache"), inspect=inspect_files, user="ada")


@pytest.fixture
def importer(repository: ModelRepository) -> ModelImporter:
    return ModelImporter(repository)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where archives are unpacked."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def below(top: str) -> dict[str, bytes]:
    return {f"{top}{path}": data for path, data in FILES.items()}


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("tiny.zip", builders.zipped),
        ("tiny.tar", builders.tarred),
        ("tiny.tar.gz", lambda files: builders.tarred(files, "w:gz")),
        ("tiny.TGZ", lambda files: builders.tarred(files, "w:gz")),
        ("tiny.tar.bz2", lambda files: builders.tarred(files, "w:bz2")),
        ("tiny.tar.xz", lambda files: builders.tarred(files, "w:xz")),
    ],
)
@pytest.mark.parametrize("top", ["", "tiny-v2/", "./", "./tiny/"])
def test_an_archive_is_registered_as_a_folder(
    importer: ModelImporter, tmp_path: Path, temporary: Path, name: str, pack: Callable[[Any], bytes], top: str
) -> None:
    (tmp_path / name).write_bytes(pack(below(top)))
    version = importer.import_model((tmp_path / name).as_uri())
    assert (version.name, version.model.format) == ("tiny", "safetensors")
    assert {file.path: file.size for file in version.files} == {path: len(data) for path, data in FILES.items()}
    assert version.metadata == {"source": {"kind": "local", "path": name}}
    assert list(temporary.iterdir()) == []


def test_what_real_tools_pack(importer: ModelImporter, tmp_path: Path, temporary: Path) -> None:
    builders.folder(tmp_path / "tiny", FILES)
    subprocess.run(["tar", "-czf", "tiny.tar.gz", "tiny"], cwd=tmp_path, check=True)
    subprocess.run(["tar", "-cf", "flat.tar", "-C", "tiny", "."], cwd=tmp_path, check=True)
    subprocess.run([sys.executable, "-m", "zipfile", "-c", "tiny.zip", "tiny/"], cwd=tmp_path, check=True)
    digests = {
        importer.import_model(tmp_path / name).digest for name in ("tiny.tar.gz", "flat.tar", "tiny.zip", "tiny")
    }
    assert len(digests) == 1


def test_what_macs_put_beside_the_files(importer: ModelImporter, tmp_path: Path, temporary: Path) -> None:
    (tmp_path / "m.zip").write_bytes(builders.zipped({**below("tiny/"), "__MACOSX/tiny/._model.safetensors": b"x"}))
    assert {file.path for file in importer.import_model(tmp_path / "m.zip").files} == FILES.keys()


def scripted() -> bytes:
    out = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), out)
    return out.getvalue()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("name", "content", "format"),
    [
        ("model.pt", scripted, "torchscript"),
        ("model.zip", scripted, "torchscript"),
        ("arrays.npz", lambda: builders.zipped({"a.npy": builders.npy([1.0])}), None),
        ("arrays.zip", lambda: builders.zipped({"a.npy": builders.npy([1.0])}), None),
        ("model.keras", lambda: builders.zipped({"config.json": b"{}", "metadata.json": b"{}"}), None),
        ("weights.zip", builders.state, "pickle"),
    ],
)
def test_files_of_models_that_are_archives_inside(
    importer: ModelImporter, tmp_path: Path, name: str, content: Callable[[], bytes], format: str | None
) -> None:
    (tmp_path / name).write_bytes(content())
    version = importer.import_model(tmp_path / name, "m", trust_pickle="made here")
    assert [file.path for file in version.files] == [name]
    assert version.model.format == format


# Hostile archives.


def tar_with(change: Callable[[tarfile.TarInfo], None], *, data: bytes = b"x", first: bool = False) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo("model.bin")
        info.size = len(data)
        if first:
            archive.addfile(info, io.BytesIO(data))
        change(info)
        archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def turned(kind: bytes, to: str = "", name: str = "link") -> bytes:
    def change(info: tarfile.TarInfo) -> None:
        info.type, info.linkname, info.name, info.size = kind, to, name, 0

    return tar_with(change, data=b"")


def named(name: str) -> bytes:
    return tar_with(lambda info: setattr(info, "name", name))


def zip_with(name: str, *, mode: int = 0, data: bytes = b"x") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        info = zipfile.ZipInfo("model.bin")
        info.filename = info.orig_filename = name
        info.external_attr = mode << 16
        archive.writestr(info, data)
    return out.getvalue()


def encrypted() -> bytes:
    data = bytearray(builders.zipped({"model.bin": b"secret"}))
    for start in (data.index(b"PK\1\2") + 8, 6):
        data[start] |= 1
    return bytes(data)


def lying_about_a_size() -> bytes:
    data = bytearray(builders.zipped({"model.bin": bytes(100_000)}, compression=zipfile.ZIP_DEFLATED))
    at = data.index(b"PK\1\2") + 24
    data[at : at + 4] = (10).to_bytes(4, "little")
    return bytes(data)


HOSTILE: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "tar-parent": (
        "m.tar",
        lambda: named("../evil"),
        r"m\.tar is refused: the file name '\.\./evil' leaves its folder",
    ),
    "tar-absolute": ("m.tar", lambda: named("/etc/evil"), "leaves its folder"),
    "tar-inner": ("m.tar", lambda: named("a/../../evil"), "leaves its folder"),
    "tar-dots": ("m.tar", lambda: named("./../evil"), "leaves its folder"),
    "tar-control": ("m.tar", lambda: named("a\nb"), "can't be kept"),
    "tar-link": ("m.tar", lambda: turned(tarfile.SYMTYPE, "/etc/passwd"), "'link' is a link or a device"),
    "tar-inner-link": ("m.tar", lambda: turned(tarfile.SYMTYPE, "model.bin"), "'link' is a link or a device"),
    "tar-hard-link": ("m.tar", lambda: turned(tarfile.LNKTYPE, "/etc/passwd"), "is a link or a device"),
    "tar-device": ("m.tar", lambda: turned(tarfile.CHRTYPE), "is a link or a device"),
    "tar-pipe": ("m.tar", lambda: turned(tarfile.FIFOTYPE), "is a link or a device"),
    "tar-folder": ("m.tar", lambda: turned(tarfile.DIRTYPE, name="../evil"), "leaves its folder"),
    "tar-twice": ("m.tar", lambda: tar_with(lambda info: None, first=True), "two of its files have one name"),
    "tar-file-and-folder": (
        "m.tar",
        lambda: tar_with(lambda info: setattr(info, "name", "model.bin/x"), first=True),
        "two of its files have one name",
    ),
    "tar-short": ("m.tar", lambda: builders.tarred({"a": os.urandom(5000)})[:2000], "is damaged"),
    "tar-no-header": ("m.tar.gz", lambda: b"\x1f\x8b\x08", "is damaged"),
    "tar-short-extra": ("m.tar.gz", lambda: b"\x1f\x8b\x08\x04" + bytes(6), "is damaged"),
    "tar-garbage": ("m.tar.gz", lambda: b"\x1f\x8b" + b"garbage" * 100, "is damaged"),
    "tar-cut": ("m.tar.gz", lambda: builders.tarred({"a": os.urandom(5000)}, "w:gz")[:3000], "is damaged"),
    "tar-empty": ("m.tar", lambda: builders.tarred({}), "holds no files"),
    "zip-parent": ("m.zip", lambda: zip_with("../evil"), "leaves its folder"),
    "zip-absolute": ("m.zip", lambda: zip_with("/etc/evil"), "leaves its folder"),
    "zip-drive": ("m.zip", lambda: zip_with("C:\\evil"), "can't be kept"),
    "zip-backslash": ("m.zip", lambda: zip_with("..\\evil"), "can't be kept"),
    "zip-folder": ("m.zip", lambda: zip_with("../evil/", data=b""), "leaves its folder"),
    "zip-link": (
        "m.zip",
        lambda: zip_with("link", mode=stat.S_IFLNK | 0o777, data=b"/etc/passwd"),
        "a link or a device",
    ),
    "zip-device": ("m.zip", lambda: zip_with("dev", mode=stat.S_IFBLK), "is a link or a device"),
    "zip-case": ("m.zip", lambda: builders.zipped({"a": b"1", "A": b"2"}), "differ by case alone"),
    "zip-encrypted": ("m.zip", encrypted, "'model.bin' is encrypted"),
    "zip-liar": ("m.zip", lying_about_a_size, "is damaged"),
    "zip-garbage": ("m.zip", lambda: b"garbage", "is damaged"),
    "zip-empty": ("m.zip", lambda: builders.zipped({}), "holds no files"),
    "zip-pickle": ("m.zip", lambda: builders.zipped({"x/notes.txt": builders.hostile()}), "notes.txt holds a pickle"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_archives(
    importer: ModelImporter, repository: ModelRepository, tmp_path: Path, temporary: Path, case: str
) -> None:
    name, content, why = HOSTILE[case]
    (tmp_path / name).write_bytes(content())
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InvalidInput, match=why) as caught:
        importer.import_model(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before
    assert list(repository.storage.objects("")) == []


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name(importer: ModelImporter, tmp_path: Path, temporary: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        archive.writestr("model.bin", b"1")
        archive.writestr("model.bin", b"2")
    with pytest.raises(InvalidInput, match="two of its files have one name"):
        importer.import_model(tmp_path / "m.zip")
    assert list(temporary.iterdir()) == []


LIMITS = archives.Limits(bytes=1 << 20, members=3, suspicious=1 << 18, ratio=10)
BOMBS: dict[str, tuple[str, bytes, str]] = {
    "zip": ("m.zip", builders.zipped({"a": bytes(1 << 19)}, compression=zipfile.ZIP_DEFLATED), "unfold into 524288 or"),
    "tar": ("m.tar.gz", builders.tarred({"a": bytes(1 << 19)}, "w:gz"), "unfold into"),
    "many-small": ("m.tar.xz", builders.tarred({f"{n}": bytes(1 << 17) for n in range(3)}, "w:xz"), "unfold into"),
    "large": ("m.tar", builders.tarred({"a": bytes(2 << 20)}), "unfold into"),
    "members": ("m.zip", builders.zipped({f"{n}": b"" for n in range(4)}), "holds more than 3 files"),
    "tar-members": ("m.tar", builders.tarred({f"{n}": b"" for n in range(4)}), "holds more than 3 files"),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs(tmp_path: Path, temporary: Path, bomb: str) -> None:
    name, content, why = BOMBS[bomb]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidInput, match=why), archives.unpacked(tmp_path / name, LIMITS):
        pass
    assert list(temporary.iterdir()) == []


def test_no_place_to_unpack(importer: ModelImporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.zip").write_bytes(builders.zipped(FILES))
    original = Path.open

    def full(self: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if mode == "xb":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(self, mode, *arguments, **options)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(InvalidInput, match=r"m\.zip can't be unpacked: No space left on device; set TMPDIR"):
        importer.import_model(tmp_path / "m.zip")
