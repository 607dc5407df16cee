"""Commands of the store itself: init."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from modelyard.cli.context import Json, print_json, print_table, yard_of


def add_to(app: typer.Typer) -> None:
    app.command()(init)


def init(
    context: typer.Context,
    where: Annotated[
        str | None, typer.Argument(metavar="STORE", help="A folder (by default .modelyard) or the URL of a bucket.")
    ] = None,
    lifecycle: Annotated[
        bool, typer.Option("--lifecycle", help="Set the proposed rules for what is no longer current in the bucket.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Make no folder, change no bucket; only small objects come and go.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a store in a folder, or see what a bucket can do. A store that is there already stays as it is.

    Says what it finds, a line each, and turns on the bucket's versioning where that is permitted.
    """
    from modelyard.settings import STORE_FOLDER
    from modelyard.store import LocalDisk, open_store
    from modelyard.store.backends import s3_endpoint
    from modelyard.store.buckets import look_after
    from modelyard.store.probe import check_folder, probe

    settings = yard_of(context).settings
    address = where or settings.store or STORE_FOLDER
    folder = None if "://" in address else Path(address).expanduser().absolute()
    if folder:
        check_folder(folder)
    if folder and dry_run and not folder.is_dir():
        if as_json:
            print_json({"store": folder.as_uri(), "checks": []})
        else:
            print(f"the store would be {folder.as_uri()}")
        return
    store = LocalDisk(folder) if folder else open_store(address)
    found = probe(store)
    found += look_after(store.url, s3_endpoint(), settings.storage, change=not dry_run, lifecycle=lifecycle)
    if as_json:
        print_json({"store": store.url, "checks": [asdict(finding) for finding in found]})
        return
    print(f"the store is {store.url}")
    print_table(("check", "state", "found"), [(finding.check, finding.state, finding) for finding in found])
