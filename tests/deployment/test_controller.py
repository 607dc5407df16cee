from __future__ import annotations

import fcntl
import threading
from pathlib import Path

import pytest

from modelyard.deployment.controller import lock, running, trusted
from modelyard.errors import Conflict, SettingsError


def test_one_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "when needed"
    assert not running(folder)
    with lock(folder):
        assert running(folder)
        with pytest.raises(Conflict, match=r"`modelyard up` runs already for this store.*stop it first"), lock(folder):
            pass
        assert running(folder)
    assert not running(folder)
    with lock(folder):
        assert running(folder)


def test_somebody_who_only_asks_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / "up.lock").touch()
    with (tmp_path / "up.lock").open("r") as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        letting_go = threading.Timer(0.1, fcntl.flock, (asking, fcntl.LOCK_UN))
        letting_go.start()
        with lock(tmp_path):
            assert running(tmp_path)
        letting_go.join()


def test_a_folder_that_can_not_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "x"
    with pytest.raises(SettingsError, match=r"x can't be used: Not a directory; set MODELYARD_STATE"), lock(folder):
        pass
    assert not running(folder)


@pytest.mark.parametrize(("text", "found"), [('["digit"]', ("digit",)), ("[]", ()), ("[", None), (None, None)])
def test_what_it_trusts_is_known_while_it_runs(tmp_path: Path, text: str | None, found: object) -> None:
    if text is not None:
        (tmp_path / "trusted.json").write_text(text)
    assert trusted(tmp_path) is None
    with lock(tmp_path):
        assert trusted(tmp_path) == found
    assert trusted(tmp_path) is None
