"""Commands of safety: scan, sign, and checking signatures."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.cli.context import Json, print_json, print_table, yard_of
from modelyard.errors import Refused

if TYPE_CHECKING:
    from modelyard.repository import Inspection


def add_to(app: typer.Typer) -> None:
    app.command()(scan)


def scan(
    context: typer.Context,
    target: Annotated[str, typer.Argument(metavar="PATH|REF", help="A file or folder, or a registered version.")],
    as_json: Json = False,
) -> None:
    """Look for code in a model's files: in a folder, or in a registered version, which then gets the evidence."""
    from modelyard.repository.scanning import keep_scan, stored_files
    from modelyard.store.files import scan as files_of

    yard = yard_of(context)
    if Path(target).expanduser().exists():
        found = yard.inspect(files_of(Path(target)))
        passed = not found.refused
    else:
        version = yard.repository.resolve(target)
        found = yard.inspect(stored_files(yard.store, version))
        passed = keep_scan(yard.store, version, found, by=yard.settings.user).passed
    if as_json:
        print_json(asdict(found) | {"passed": passed})
    else:
        _print(found)
    if not passed:
        path, what = next(iter(found.refused.items()))
        more = f" and {len(found.refused) - 1} more" if len(found.refused) > 1 else ""
        raise Refused(f"{path} holds {what}{more}", remedy="convert it to safetensors")


def _print(found: Inspection) -> None:
    rows = [("REFUSED", path, what) for path, what in found.refused.items()]
    rows += [("ok", path, f"a pickle ({why})") for path, why in found.pickles.items() if path not in found.refused]
    rows += [("note", path, what) for path, what in found.notes.items()]
    print_table(("RESULT", "FILE", "FOUND"), rows) if rows else print("nothing was found that could run code")
    scanners = ", ".join(f"{name} {release}" for name, release in found.scanners.items())
    print(f"pickles: {found.policy}" + (f"; second opinion: {scanners}" if scanners else ""))
