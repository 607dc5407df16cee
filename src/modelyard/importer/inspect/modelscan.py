"""modelscan as one more opinion on files that hold pickles: its command, from an environment of its own.

Its library can't be installed beside this one: it asks for older releases of what the command line is made of. The
command reads files of this machine, so those that lie elsewhere get no such opinion.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from modelyard.errors import Unavailable

_TIMEOUT_S = 600
_ANSWERS = (0, 1)  # nothing found, something found


def ask(command: str, file: Path) -> tuple[str | None, str]:
    """What modelscan holds against a file, or None; and its version. Raises Unavailable when it gives no answer."""
    with TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        line = [command, "-p", str(file), "-r", "json", "-o", str(answer)]
        try:
            done = subprocess.run(line, cwd=folder, capture_output=True, timeout=_TIMEOUT_S, check=False)
            found = json.loads(answer.read_bytes()) if done.returncode in _ANSWERS else {}
            release = str(found["summary"]["modelscan_version"])
            objections = [str(each["description"]) for each in found["issues"]]
            objections += [f"it can't read it: {_reason(each)}" for each in found["errors"]]
        except subprocess.TimeoutExpired as error:
            raise Unavailable(f"{command} gave no answer in {_TIMEOUT_S} s", remedy=_MEND) from error
        except OSError as error:
            raise Unavailable(f"{command} can't be run: {error.strerror}", remedy=_MEND) from error
        except (ValueError, KeyError, TypeError) as error:
            raise Unavailable(f"{command} gave no answer that is known", remedy=_MEND) from error
    return (f"modelscan says: {objections[0]}" if objections else None), release


def _reason(error: Any) -> str:
    return str(error.get("description", error)) if isinstance(error, dict) else str(error)


_MEND = "mend the setting scan.modelscan, or leave it out"
