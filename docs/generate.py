"""Writes the pages that are made from the code; with --check it only says which of them are not up to date."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import commands_page
import settings_page

from modelyard.gateway.openapi import openapi

FOLDER = Path(__file__).resolve().parent
PAGES: dict[str, Callable[[], str]] = {
    "reference/commands.md": commands_page.page,
    "settings.md": settings_page.page,
    "reference/openapi.json": lambda: json.dumps(openapi(), indent=1) + "\n",
}


def main(arguments: list[str], folder: Path = FOLDER) -> int:
    """The exit code: 1 if --check found a page that differs."""
    made = {folder / name: page() for name, page in PAGES.items()}
    stale = [path for path, text in made.items() if not path.is_file() or path.read_text() != text]
    for path in stale:
        if "--check" in arguments:
            print(f"{path} is not up to date; run `make docs`", file=sys.stderr)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(made[path])
            print(f"wrote {path}")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
