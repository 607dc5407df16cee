"""Commands of the store itself: init."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modelyard.cli.context import yard_of


def add_to(app: typer.Typer) -> None:
    app.command()(init)


def init(
    context: typer.Context,
    where: Annotated[
        str | None, typer.Argument(metavar="STORE", help="A folder (by default .modelyard) or the URL of a bucket.")
    ] = None,
) -> None:
    """Make a store in a folder, or see whether a bucket can be one. A store that is there already stays as it is."""
    from modelyard.settings import STORE_FOLDER
    from modelyard.store import LocalDisk, open_store
    from modelyard.store.probe import check_folder, probe

    address = where or yard_of(context).settings.store or STORE_FOLDER
    if "://" not in address:
        check_folder(Path(address).expanduser())
    store = open_store(address) if "://" in address else LocalDisk(address)
    probe(store)
    print(f"the store is {store.url}")
