"""What `promote` shows while it waits: a line on a terminal, which makes way for the table; nothing in a pipe."""

from __future__ import annotations

import re

from .conftest import NEW, OLD
from .load import Load
from .machine import Machine

ASKED = ("--steps", "50", "--step-pause", "1", "--no-analysis", "--force", "--reason", "a test")
_CONTROL = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])|(\r)|(\n)|([^\x1b\r\n]+)")


class Screen:
    """What a terminal shows, for the few control sequences that a line of progress needs."""

    def __init__(self) -> None:
        self.lines = [""]
        self._row = self._column = 0

    def write(self, part: re.Match[str]) -> None:
        argument, command, back, down, text = part.groups()
        if back:
            self._column = 0
        elif down:
            self._row, self._column = self._row + 1, 0
            self.lines += [""] * (self._row + 1 - len(self.lines))
        elif text:
            line = self.lines[self._row].ljust(self._column)
            self.lines[self._row] = line[: self._column] + text + line[self._column + len(text) :]
            self._column += len(text)
        elif command == "K" and argument == "2":
            self.lines[self._row] = ""
        elif command == "A":
            self._row -= int(argument or 1)
        else:  # colours, and whether the cursor is seen
            assert command in "mhl", part

    @property
    def shown(self) -> list[str]:
        return [line.rstrip() for line in self.lines if line.strip()]


def screens(written: str) -> list[list[str]]:
    """What was to be seen, one after the other."""
    screen, found = Screen(), list[list[str]]()
    parts = list(_CONTROL.finditer(written))
    assert "".join(part[0] for part in parts) == written
    for part in parts:
        screen.write(part)
        if screen.shown not in found[-1:]:
            found.append(screen.shown)
    return found


def test_the_progress_makes_way_for_the_table(machine: Machine) -> None:
    machine.start()
    machine.promote(OLD)
    load = Load(machine.port, machine.model)
    with load.running():
        written = machine.run_on_terminal("promote", f"{machine.model}:{NEW}", *ASKED)
    seen = screens(written)
    gets = f"step 1 of 1: {NEW} gets 50 % of the requests"
    assert [line for lines in seen for line in lines if line.endswith(f"{machine.model}:{NEW}  {gets}")], written
    assert all(len(lines) == 1 for lines in seen if any("step 1 of 1" in line for line in lines))
    done, header, *rows = seen[-1]
    assert done == f"{machine.model}:{NEW} serves in production"
    assert header.split() == ["VERSION", "REQUESTS", "FAILED"]
    assert [(row.split()[0], row.split()[2]) for row in rows] == [(OLD, "0"), (NEW, "0")]
    assert written.count("\x1b[?25l") == written.count("\x1b[?25h") == 1  # the cursor is back


def test_a_pipe_gets_the_table_alone(machine: Machine) -> None:
    machine.start()
    machine.promote(OLD)
    load = Load(machine.port, machine.model)
    with load.running():
        piped = machine.run("promote", f"{machine.model}:{NEW}", *ASKED)
    assert (piped.returncode, piped.stderr) == (0, ""), piped
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", piped.stdout)
    done, header, *rows = piped.stdout.splitlines()
    assert done == f"{machine.model}:{NEW} serves in production"
    assert (header.split(), len(rows)) == (["VERSION", "REQUESTS", "FAILED"], 2)
