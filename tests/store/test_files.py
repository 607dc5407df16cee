"""Which folders may be stored, and what is said about those that may not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard.errors import InvalidInput, ModelyardError, NotFound
from modelyard.store import Memory
from modelyard.store.files import LocalFile, scan
from modelyard.store.transfer import send


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    made.mkdir()
    (made / "weights.bin").write_bytes(b"12345")
    return made


def test_every_file_is_found_in_order(folder: Path) -> None:
    (folder / "b/c").mkdir(parents=True)
    (folder / "b/c/d.json").touch()
    (folder / "a.txt").write_text("x")
    (folder / ".hidden").touch()
    (folder / "nothing in here").mkdir()
    found = scan(folder)
    assert [(file.path, file.size) for file in found] == [
        (".hidden", 0),
        ("a.txt", 1),
        ("b/c/d.json", 0),
        ("weights.bin", 5),
    ]
    assert all(file.source.is_absolute() for file in found)


def test_a_single_file_is_a_folder_of_one(folder: Path) -> None:
    assert scan(folder / "weights.bin") == [LocalFile(folder / "weights.bin", "weights.bin", 5)]


def test_a_link_to_a_single_file_keeps_the_name_of_the_link(folder: Path) -> None:
    (folder / "latest.bin").symlink_to("weights.bin")
    assert scan(folder / "latest.bin") == [LocalFile(folder / "weights.bin", "latest.bin", 5)]


def test_links_that_stay_inside_are_followed(folder: Path) -> None:
    (folder / "copy.bin").symlink_to("weights.bin")
    assert [(file.path, file.size) for file in scan(folder)] == [("copy.bin", 5), ("weights.bin", 5)]


def test_the_folder_itself_may_be_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    assert [file.path for file in scan(tmp_path / "link")] == ["weights.bin"]


def leaving_link(folder: Path) -> None:
    (folder.parent / "secret").write_text("secret")
    (folder / "link").symlink_to("../secret")


def link_to_a_neighbour_with_the_same_beginning(folder: Path) -> None:
    shutil.copytree(folder, f"{folder}-2")
    (folder / "link").symlink_to(f"{folder}-2/weights.bin")


def link_to_folder(folder: Path) -> None:
    (folder / "inner").mkdir()
    (folder / "inner/x").touch()
    (folder / "link").symlink_to("inner")


def clash(folder: Path) -> None:
    (folder / "Weights.BIN").touch()


def clash_of_accents(folder: Path) -> None:
    (folder / "caf\u00e9").touch()
    (folder / "cafe\u0301").touch()


def non_utf8(folder: Path) -> None:
    (Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe.bin"))).touch()


def named(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).touch()

    return make


BAD = {
    "a link that leaves": (leaving_link, "link is a link that leaves the folder; put a copy"),
    "a link to a neighbour": (link_to_a_neighbour_with_the_same_beginning, "link is a link that leaves the folder"),
    "a link to nothing": (lambda f: (f / "link").symlink_to("gone"), "link is a link to nothing; remove it"),
    "a link to itself": (lambda f: (f / "link").symlink_to("link"), "link is a link to nothing; remove it"),
    "a link to a folder": (link_to_folder, "link is a link to a folder; copy the folder in its place"),
    "a case clash": (clash, "Weights.BIN and weights.bin differ by case alone; rename one"),
    "a clash of accents": (clash_of_accents, "differ by case alone"),
    "a pipe": (lambda f: os.mkfifo(f / "pipe"), "pipe is not a regular file; remove it"),
    "not UTF-8": (non_utf8, "is not valid UTF-8; rename it"),
    "a device of Windows": (named("nul.txt"), "'nul.txt' can't be kept on every system; rename it"),
    "a colon": (named("a:b"), "'a:b' can't be kept on every system"),
    "a backslash": (named("a\\b"), "can't be kept on every system"),
    "a line break": (named("a\nb"), "can't be kept on every system"),
    "a dot at the end": (named("a."), "can't be kept on every system"),
    "a blank at the end": (named("a "), "can't be kept on every system"),
    "the mark of a file being written": (named("a#12"), "can't be kept on every system"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_folder_that_would_not_survive_is_refused(case: str, folder: Path) -> None:
    spoil, message = BAD[case]
    spoil(folder)
    with pytest.raises(InvalidInput) as refused:
        scan(folder)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty/deep").mkdir(parents=True)
    with pytest.raises(InvalidInput, match=r"the folder .*empty is empty"):
        scan(tmp_path / "empty")


@pytest.mark.parametrize("name", ["missing", "weights.bin/below", "x" * 300])
def test_a_missing_folder_is_named(name: str, folder: Path) -> None:
    with pytest.raises(NotFound, match=f"there is no file or folder .*{name}"):
        scan(folder / name)


@pytest.mark.parametrize("change", [Path.unlink, lambda path: path.write_bytes(b"123456")])
def test_a_file_that_changes_while_it_is_sent_is_named(change: Callable[[Path], None], folder: Path) -> None:
    files = scan(folder)
    change(folder / "weights.bin")
    with pytest.raises(InvalidInput, match=r"weights\.bin (can't be read|changed while it was read)"):
        send(Memory(), files, "models/m")


def test_a_file_that_cannot_be_read_is_not_blamed_on_the_store(folder: Path) -> None:
    """The kernel refuses to read address 0 of a process's memory, for root too."""
    unreadable = LocalFile(Path("/proc/self/mem"), "memory.bin", 20 * 1024 * 1024)
    with pytest.raises(InvalidInput, match=r"memory\.bin can't be read: Input/output error"):
        send(Memory(), [unreadable], "models/m")


def test_big_files_come_in_chunks(folder: Path) -> None:
    data = os.urandom(17 * 1024 * 1024)
    (folder / "big").write_bytes(data)
    parts = list(scan(folder / "big")[0].chunks())
    assert len(parts) == 3
    assert b"".join(parts) == data


def test_every_refusal_is_one_of_ours(tmp_path: Path) -> None:
    for path in (tmp_path / "no\x00name", tmp_path / "a" / ".." / "gone"):
        with pytest.raises(ModelyardError):
            scan(path)
