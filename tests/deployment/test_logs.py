"""Logs that are started anew while somebody writes to them, and somebody else reads."""

from __future__ import annotations

from pathlib import Path

from modelyard.deployment.targets.logs import Follower, last_lines, older, remove, rotate


def test_followed_over_the_seam_nothing_is_missing(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    follower, seen = Follower(), ""
    with log.open("ab", buffering=0) as writer:
        writer.write(b"before\n")
        follower.skip([log])
        for number in range(50):
            writer.write(f"line {number}\nhalf ".encode())
            if number % 3 == 0:
                seen += follower.read(log)
            rotate(log, 200)
            assert log.stat().st_size <= 200
            writer.write(b"of one\n")
        seen += follower.read(log)
    assert older(log).exists()
    assert seen == "".join(f"line {number}\nhalf of one\n" for number in range(50))


def test_the_last_lines_reach_over_the_seam(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("1\n2\n3\n")
    rotate(log, 100)
    assert not older(log).exists()
    rotate(log, 5)
    assert (log.read_text(), older(log).read_text()) == ("", "1\n2\n3\n")
    log.write_text("4\n5\n")
    assert last_lines(log, 2) == ["4", "5"]
    assert last_lines(log, 3) == ["3", "4", "5"]
    assert last_lines(log, 99) == ["1", "2", "3", "4", "5"]
    remove(log)
    rotate(log, 5)
    assert last_lines(log, 2) == []
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_comes_later_is_read_from_its_beginning(tmp_path: Path) -> None:
    follower, log = Follower(), tmp_path / "b.log"
    assert follower.read(log) == ""
    log.write_text("one\ntw")
    assert follower.read(log) == "one\n"
    log.write_text("one\ntwo\n")
    assert follower.read(log) == "two\n"
