"""Commands of safety: scan, sign."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.cli.context import Json, Reference, print_json, print_table, yard_of
from modelyard.errors import InvalidInput, Refused

if TYPE_CHECKING:
    from modelyard.repository import Inspection


def add_to(app: typer.Typer) -> None:
    for command in (scan, sign):
        app.command()(command)


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


def sign(
    context: typer.Context,
    ref: Reference,
    key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A private key on an elliptic curve, in PEM.")
    ] = None,
    certificate: Annotated[Path | None, typer.Option(metavar="FILE", help="The key's certificate, in PEM.")] = None,
    chain: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Certificates between it and the authority's.")
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keep a signature that model_signing made, instead of signing.")
    ] = None,
    variable: Annotated[
        str, typer.Option("--password-variable", metavar="NAME", help="Where the key's password is, if it has one.")
    ] = "MODELYARD_KEY_PASSWORD",
) -> None:
    """Sign a version's files, or keep a signature of them that was made elsewhere."""
    from modelyard.repository.keys import Key

    if bundle and (key or certificate or chain):
        raise InvalidInput("--bundle is a signature already", remedy="leave out the other options")
    yard = yard_of(context)
    version = yard.repository.resolve(ref)
    if bundle:
        made = yard.signatures.attach(version, _text(bundle), where=str(bundle))
    elif key:
        private = Key.read(key, password=os.environ.get(variable))
        made = yard.signatures.sign(version, private, certificate=certificate, chain=chain or ())
    else:
        raise InvalidInput("there is nothing to sign with", remedy="give --key, or --bundle")
    print(f"signed {version.ref} ({made.method} {made.key[:12]})")


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} can't be read: {error}", remedy="check the path") from error


def _print(found: Inspection) -> None:
    rows = [("REFUSED", path, what) for path, what in found.refused.items()]
    rows += [("ok", path, f"a pickle ({why})") for path, why in found.pickles.items() if path not in found.refused]
    rows += [("note", path, what) for path, what in found.notes.items()]
    print_table(("RESULT", "FILE", "FOUND"), rows) if rows else print("nothing was found that could run code")
    scanners = ", ".join(f"{name} {release}" for name, release in found.scanners.items())
    print(f"pickles: {found.policy}" + (f"; second opinion: {scanners}" if scanners else ""))
