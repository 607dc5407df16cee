"""`modelyard logs` on files that replicas have written, and write."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from modelyard.deployment.targets.logs import rotate
from modelyard.settings import load_settings
from modelyard.yard import Yard

from .conftest import Cli


def test_the_last_lines_and_what_comes_after_them(cli: Cli, folder: Path) -> None:
    cli("init")
    yard = Yard(load_settings(folder))
    logs = yard.run_folder(yard.store) / "logs"
    logs.mkdir(parents=True)
    first, second = (logs / f"production-calc-v1.{number}.0-0000000{number}.log" for number in (1, 2))
    first.write_text("one\ntwo\nthree\n")
    assert cli("logs", "calc", "--lines", "2").out == f"==> {first}\ntwo\nthree\n"

    command = [sys.executable, "-m", "modelyard", "logs", "calc", "--lines", "1", "--follow"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout
        read = follower.stdout.readline
        assert [read(), read()] == [f"==> {first}\n", "three\n"]
        rotate(first, 5)
        with first.open("a") as writer:
            writer.write("four\n")
        assert [read(), read()] == [f"==> {first}\n", "four\n"]
        second.write_text("five\n")
        assert [read(), read()] == [f"==> {second}\n", "five\n"]
        follower.terminate()
