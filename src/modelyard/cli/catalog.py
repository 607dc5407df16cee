"""Commands of the catalog: ls."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.cli.context import Json, human_size, print_json, print_table, yard_of

if TYPE_CHECKING:
    from modelyard.repository.index import Found
    from modelyard.store.transfer import Progress
    from modelyard.yard import Yard


def add_to(app: typer.Typer) -> None:
    app.command()(ls)


def ls(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="A model's name.")] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(metavar="CONDITION", help="Versions with task=text-generation, metrics.f1>=0.9, …; repeatable."),
    ] = None,
    latest: Annotated[bool, typer.Option("--latest", help="Only each model's highest release.")] = False,
    yanked: Annotated[bool, typer.Option("--yanked", help="Yanked versions too.")] = False,
    sort: Annotated[
        str | None, typer.Option(metavar="KEY", help="By a value such as metrics.f1; -metrics.f1: the highest first.")
    ] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="Not more than so many.")] = None,
    as_json: Json = False,
) -> None:
    """List the models, or a model's versions with their tags, or versions that meet conditions."""
    yard = yard_of(context)
    if where or latest or yanked or sort:
        with _reading() as progress:
            found = yard.index.search(
                where or (),
                name=name,
                latest=latest,
                yanked=yanked,
                sort=sort,
                limit=limit,
                details=as_json,
                progress=progress,
            )
        _print_found(yard, found, where or (), sort, as_json=as_json)
    elif name:
        _print_versions(yard, name, limit, as_json=as_json)
    elif as_json:
        print_json(yard.repository.list_models()[:limit])
    else:
        names = yard.repository.list_models()[:limit]
        print("\n".join(names) or f"{yard.store.url} holds no models yet; `modelyard register` adds one")


def _print_versions(yard: Yard, name: str, limit: int | None, *, as_json: bool) -> None:
    versions, tags = yard.repository.list_models(name)[:limit], yard.repository.tags(name)
    rows = [(version, sorted(tag for tag, pointed in tags.items() if pointed == version)) for version in versions]
    if as_json:
        print_json([{"version": version, "tags": pointing} for version, pointing in rows])
        return
    for version, pointing in rows:
        print(f"{version}  {', '.join(pointing)}".rstrip())


def _print_found(yard: Yard, found: list[Found], where: Sequence[str], sort: str | None, *, as_json: bool) -> None:
    if as_json:
        print_json([asdict(each) | {"version": str(each.version), "digest": str(each.digest)} for each in found])
    elif found:
        rows = [_row(each) for each in found]
        head = ["NAME", "VERSION", "TAGS", "TASK", "SIZE", "CREATED"]
        if any(each.sorted_by is not None for each in found):
            head.append((sort or "").removeprefix("-").upper())
            rows = [[*row, each.sorted_by] for row, each in zip(rows, found, strict=True)]
        print_table(head, rows)
    else:
        absent = yard.index.absent(where)
        print("no version matches" + (f"; none has {' or '.join(absent)} at all" if absent else ""))
    if problems := yard.index.problems():
        key, why = next(iter(problems.items()))
        more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
        print(f"note: not listed, as it can't be read: {key}{more} ({why})", file=sys.stderr)


def _row(found: Found) -> list[object]:
    version = f"{found.version} (yanked)" if found.yanked else str(found.version)
    return [
        *(found.name, version, ", ".join(found.tags) or None),
        *(found.task, human_size(found.size), f"{found.created_at:%Y-%m-%d}"),
    ]


@contextmanager
def _reading() -> Iterator[Progress]:
    """How many objects were read so far, on a terminal; nothing otherwise."""
    from modelyard.store.transfer import no_progress

    if not sys.stderr.isatty():
        yield no_progress
        return
    from rich.console import Console

    count = 0
    with Console(stderr=True).status("reading the catalog") as status:

        def more(objects: int) -> None:
            nonlocal count
            count += objects
            status.update(f"reading the catalog: {count:,} objects")

        yield more
