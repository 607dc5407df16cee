"""A store that was tampered with or damaged: whatever reads it refuses it, names the place, and writes nothing."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ports import free_port

from .conftest import Cli, refused

MANIFEST = "versions/good/v1.0.0.json"
GGUF = b"GGUF" + (3).to_bytes(4, "little") + bytes(16) + bytes(40)

READERS = (("show", "good"), ("pull", "good"), ("pull", "good", "out"), ("verify",), ("stage", "good:v1.0.0"))


@pytest.fixture
def store(folder: Path) -> Path:
    return folder / ".modelyard"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 1}', '"text"', "\0"])
@pytest.mark.parametrize("line", READERS, ids=" ".join)
def test_a_manifest_that_is_none(yard: Cli, store: Path, text: str, line: tuple[str, ...]) -> None:
    (store / MANIFEST).write_text(text)

    refused(yard(*line), MANIFEST)


@pytest.mark.parametrize("line", READERS, ids=" ".join)
def test_a_manifest_that_was_changed(yard: Cli, store: Path, line: tuple[str, ...]) -> None:
    rewrite(store / MANIFEST, lambda manifest: manifest["files"][0].update(path="other.bin"))

    refused(yard(*line), MANIFEST, "does not match its own digest")


def test_a_manifest_of_a_later_schema(yard: Cli, store: Path) -> None:
    rewrite(store / MANIFEST, lambda manifest: manifest.update(schema=2))

    refused(yard("pull", "good", "out"), MANIFEST, "has schema 2; update modelyard")


def test_a_manifest_with_a_field_that_is_new(yard: Cli, store: Path) -> None:
    rewrite(store / MANIFEST, lambda manifest: manifest.update(colour="blue"))

    assert yard("pull", "good", "out").code == 0


@pytest.mark.parametrize("path", ["../x", "/tmp/x", "a/../../x", "a//x", "a\\x", ""])
def test_a_manifest_whose_file_leaves_the_folder(yard: Cli, folder: Path, store: Path, path: str) -> None:
    forge(store / MANIFEST, path=path)
    before = files_below(folder.parent)

    refused(yard("pull", "good"), repr(path))
    refused(yard("pull", "good", "out"), repr(path))

    assert not (folder / "out").exists()
    strangers = {file for file in files_below(folder.parent) - before if file.name == "x"}
    assert strangers == set()


@pytest.mark.parametrize("key", ["../../../../etc/hostname", "/etc/hostname"])
def test_a_manifest_whose_key_leaves_the_store(yard: Cli, store: Path, key: str) -> None:
    forge(store / MANIFEST, key=key)

    refused(yard("pull", "good", "out"), repr(key))
    refused(yard("verify", "good"), repr(key))


def test_a_key_of_another_object(yard: Cli, store: Path) -> None:
    forge(store / MANIFEST, key=MANIFEST)

    refused(yard("pull", "good", "out"), "weights.bin is damaged in the store", MANIFEST)


def test_a_flipped_byte(cli: Cli, folder: Path, store: Path) -> None:
    (folder / "model.gguf").write_bytes(GGUF)
    assert cli("init").code == 0
    assert cli("register", "model.gguf", "talker:v1.0.0").code == 0
    assert cli("verify").out.endswith(" is as registered\n")
    flip(next(store.glob("models/talker/v1.0.0/*/model.gguf")))

    refused(cli("verify"), "model.gguf of talker:v1.0.0@sha256:", "is damaged; restore the file")
    refused(cli("verify", "talker:latest"), "model.gguf of talker:v1.0.0@sha256:")
    refused(cli("pull", "talker"), "model.gguf is damaged in the store", "restore the object")
    refused(cli("pull", "talker", "out"), "model.gguf is damaged in the store")
    refused(cli("serve", "talker", "--port", str(free_port())), "model.gguf is damaged in the store")
    assert not (folder / "out").exists()
    listed = cli("verify", "--json")
    assert listed.code == 1
    assert [(found["path"], found["what"]) for found in listed.json] == [("model.gguf", "damaged")]


def test_a_byte_flipped_in_the_cache_is_fetched_again(yard: Cli, folder: Path) -> None:
    tree = Path(yard("pull", "good").out.strip())
    (tree / "weights.bin").chmod(0o644)
    flip(tree / "weights.bin")

    assert Path(yard("pull", "good").out.strip()) == tree
    assert (tree / "weights.bin").read_bytes() == b"weights"
    assert yard("pull", "good", "out").code == 0
    assert (folder / "out" / "weights.bin").read_bytes() == b"weights"


def test_serve_does_not_trust_the_cache(cli: Cli, folder: Path, store: Path) -> None:
    (folder / "model.gguf").write_bytes(GGUF)
    cli("init")
    cli("register", "model.gguf", "talker:v1.0.0")
    cached = Path(cli("pull", "talker").out.strip()) / "model.gguf"
    cached.chmod(0o644)
    for path in (cached, next(store.glob("models/talker/v1.0.0/*/model.gguf"))):
        flip(path)

    refused(cli("serve", "talker", "--port", str(free_port())), "model.gguf is damaged in the store")


def test_a_file_that_is_gone(yard: Cli, store: Path) -> None:
    next(store.glob("models/good/v1.0.0/*/weights.bin")).unlink()

    refused(yard("verify"), "weights.bin of good:v1.0.0@sha256:", "is missing")
    refused(yard("pull", "good"), "weights.bin is missing in the store")


@pytest.mark.parametrize("text", ["", "{", "[]", '"text"', '{"number": 1}'])
@pytest.mark.parametrize("line", [("ls", "good"), ("history", "good"), ("tag", "good:v1.0.0", "stable")], ids=" ".join)
def test_a_damaged_entry_of_the_catalog(yard: Cli, store: Path, text: str, line: tuple[str, ...]) -> None:
    entry = next((store / "catalog" / "good").iterdir())
    entry.write_text(text)

    refused(yard(*line), f"catalog/good/{entry.name}")


@pytest.mark.parametrize("text", ["", "{", "[]", '"text"', '{"number": 1}'])
@pytest.mark.parametrize("line", [("status",), ("stage", "good:v1.0.0"), ("show", "good:staging")], ids=" ".join)
def test_a_damaged_entry_of_an_environment(yard: Cli, store: Path, text: str, line: tuple[str, ...]) -> None:
    refused(yard("stage", "good:v1.0.0"), "recorded")
    entry = next((store / "deployments" / "staging").iterdir())
    entry.write_text(text)

    refused(yard(*line), f"deployments/staging/{entry.name}")


def test_a_store_that_was_emptied(yard: Cli, store: Path) -> None:
    for part in store.iterdir():
        shutil.rmtree(part)

    assert yard("ls").out.endswith("holds no models yet; `modelyard register` adds one\n")
    refused(yard("show", "good"), "there is no model 'good'")


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def forge(stored: Path, /, **changed: str) -> None:
    """Change the manifest's only file, and its digest so that nothing shows."""

    def change(manifest: dict[str, Any]) -> None:
        file = manifest["files"][0] | changed
        line = f"{file['sha256']} {file['size']} {file['path']}\n"
        manifest.update(files=[file], digest=f"sha256:{hashlib.sha256(line.encode()).hexdigest()}")

    rewrite(stored, change)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def files_below(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def test_verify_reads_the_journals_too(yard: Cli, folder: Path) -> None:
    for journal in ("catalog/good", "deployments/production"):
        entry = folder / ".modelyard" / journal / f"{10**12 - 2}.json"
        entry.parent.mkdir(parents=True, exist_ok=True)
        entry.write_text("[]")

    refused(yard("verify"), "a journal entry of catalog/good", "a journal entry of deployments/production")
