"""Commands that compare, take back, clean up and copy versions: diff, yank, delete, gc, copy."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Annotated, Any

import typer

from modelyard.cli.context import Json, Reason, Reference, exact, human_size, print_json, print_table, transfer, yard_of
from modelyard.errors import InvalidInput

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
Exact = Annotated[str, typer.Argument(metavar="REF", help="name:v1.2.0")]


def add_to(app: typer.Typer) -> None:
    for command in (diff, yank, delete, gc, copy):
        app.command()(command)


def diff(
    context: typer.Context,
    old: Annotated[str, typer.Argument(metavar="OLD", help="name, name:v1.2.0 or name:tag.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="name, name:v1.2.0 or name:tag.")],
    as_json: Json = False,
) -> None:
    """What differs between two versions: files, what inspection found, metadata, lineage."""
    found = yard_of(context).repository.diff(old, new)
    if as_json:
        print_json([asdict(each) for each in found])
    elif found:
        rows = [(each.kind, each.what, _brief(each.old), _brief(each.new)) for each in found]
        print_table(("WHAT", "NAME", "OLD", "NEW"), rows)
    else:
        print("they are the same")


def yank(
    context: typer.Context,
    ref: Exact,
    undo: Annotated[bool, typer.Option("--undo", help="Take the yank back.")] = False,
    reason: Reason = "",
) -> None:
    """Keep a version, but let nothing new resolve to it."""
    repository, (name, version) = yard_of(context).repository, exact(context, ref)
    if undo:
        repository.undo_yank(name, version, reason=reason)
        print(f"{name}:{version} is not yanked any more")
        return
    repository.yank(name, version, reason=_given(reason, "yank"))
    print(f"{name}:{version} is yanked")


def delete(context: typer.Context, ref: Exact, reason: Reason = "", dry_run: DryRun = False) -> None:
    """Remove a version's files for good; its number is never used again."""
    from modelyard.refs import ModelRef

    repository, (name, version) = yard_of(context).repository, exact(context, ref)
    reason = _given(reason, "delete")
    found = repository.resolve(ModelRef.parse(ref))
    size = f"{len(found.files)} files, {human_size(found.size)}"
    if dry_run:
        repository.refuse_used(found)
        print(f"would delete {found.ref} ({size})")
        return
    repository.delete(name, version, reason=reason)
    print(f"deleted {found.ref} ({size})")


def gc(context: typer.Context, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Remove what interrupted and failed commands left in the store more than a day ago."""
    repository = yard_of(context).repository
    garbage = repository.collect_garbage(dry_run=dry_run)
    if as_json:
        print_json([asdict(each) for each in garbage])
        return
    for why, count in sorted(Counter(each.why for each in garbage).items()):
        print(f"{count} {why}")
    what = f"{len(garbage)} objects, {human_size(sum(each.size for each in garbage))}"
    print(f"{'would remove' if dry_run else 'removed'} {what}" if garbage else "there is no garbage")


def copy(
    context: typer.Context,
    ref: Reference,
    store: Annotated[str, typer.Argument(metavar="STORE", help="Another store: s3://bucket/prefix or a folder.")],
    tags: Annotated[list[str] | None, typer.Option("--tag", metavar="TAG", help="Tag it there.")] = None,
    dry_run: DryRun = False,
) -> None:
    """Copy a version into another store, with its digest, metadata, lineage and signatures."""
    from modelyard.repository.replication import copy as copy_version

    yard = yard_of(context)
    version, there = yard.repository.resolve(ref), yard.at(store).repository
    if there.storage.url == yard.store.url:
        raise InvalidInput(f"{store} is the store it is in already", remedy="name another store")
    what = f"{version.ref} ({len(version.files)} files, {human_size(version.size)})"
    if dry_run:
        print(f"would copy {what} to {there.storage.url}")
        return
    with transfer(f"copy {version.name}:{version.version}", version.size) as progress:
        copy_version(yard.repository, version, there, tags=tags or (), progress=progress)
    print(f"copied {what} to {there.storage.url}")


def _given(reason: str, verb: str) -> str:
    if not reason.strip():
        raise InvalidInput(f"`modelyard {verb}` needs a reason, for those who ask later", remedy="give --reason TEXT")
    return reason


def _brief(value: Any) -> str:
    match value:
        case None:
            return "-"
        case {"size": int(size), "sha256": str(sha256), **rest} if not rest:
            return f"{sha256[:12]} ({human_size(size)})"
    text = str(value)
    return text if len(text) <= 40 else f"{text[:39]}…"
