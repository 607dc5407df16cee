"""Commands of the repository: show, pull, tag, history, verify."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelyard.cli.context import (
    Exclude,
    Include,
    Json,
    Name,
    Reason,
    Reference,
    human_size,
    no_version,
    print_json,
    print_table,
    transfer,
    yard_of,
)
from modelyard.errors import IntegrityError, InvalidInput

if TYPE_CHECKING:
    from modelyard.repository.lineage import Link

_NAMED = 5  # damaged files in one line


def add_to(app: typer.Typer) -> None:
    for command in (show, pull, tag, history, verify):
        app.command()(command)


def show(
    context: typer.Context,
    ref: Reference,
    lineage: Annotated[bool, typer.Option("--lineage", help="What it was made of, and what was made of it.")] = False,
    as_json: Json = False,
) -> None:
    """Everything known of a version."""
    repository = yard_of(context).repository
    version = repository.resolve(ref)
    if lineage:
        _show_lineage(*repository.lineage(version), as_json=as_json)
        return
    tags = _pointing(repository.tags(version.name), str(version.version))
    yanked = repository.record(version.name).yanked.get(str(version.version))
    if as_json:
        print_json(json.loads(version.to_json()) | {"tags": tags, "yanked": yanked})
        return
    print(version.ref)
    facts: dict[str, Any] = {"tags": ", ".join(tags)} if tags else {}
    if yanked is not None:
        facts["yanked"] = yanked
    facts["created"] = f"{version.created_at:%Y-%m-%d %H:%M:%S} by {version.created_by}"
    facts |= {key: _words(value) for key, value in asdict(version.model).items() if value is not None}
    facts |= {f"metadata.{key}": json.dumps(value, ensure_ascii=False) for key, value in version.metadata.items()}
    facts |= {f"lineage.{key}": value for key, value in version.lineage.items()}
    if version.trusted_pickle:
        facts["trusted pickle"] = version.trusted_pickle
    for key, value in facts.items():
        print(f"  {key}: {value}")
    print_table(("FILE", "SIZE", "SHA256"), [(file.path, human_size(file.size), file.sha256) for file in version.files])


def _show_lineage(ancestors: Sequence[Link], descendants: Sequence[Link], *, as_json: bool) -> None:
    if as_json:
        print_json({"ancestors": [asdict(link) for link in ancestors], "descendants": [asdict(d) for d in descendants]})
        return
    for link in ancestors:
        print(f"{'  ' * (link.depth - 1)}↑ {link.kind} {link.parent}")
    for link in descendants:
        print(f"{'  ' * (link.depth - 1)}↓ {link.child} ({link.kind})")
    if not ancestors and not descendants:
        print("nothing is known of where it comes from, and nothing was made of it")


def pull(
    context: typer.Context,
    ref: Reference,
    destination: Annotated[Path | None, typer.Argument(metavar="DEST", help="A new or empty folder.")] = None,
    include: Include = None,
    exclude: Exclude = None,
) -> None:
    """Get a version's files, verified."""
    from modelyard.store.files import Filter

    repository, only = yard_of(context).repository, Filter(include or (), exclude or ())
    version = repository.resolve(ref)
    size = sum(file.size for file in only.choose(version.files))
    with transfer(f"pull {version.name}:{version.version}", size) as progress:
        folder = repository.pull(version, destination, only=only, progress=progress) if destination else None
        folder = folder or repository.fetch(version, only=only, progress=progress)
    print(folder)


def tag(
    context: typer.Context,
    ref: Annotated[
        str, typer.Argument(metavar="REF", help="name:v1.2.0 or name:tag; with --undo or --remove, the name.")
    ],
    name: Annotated[str, typer.Argument(metavar="TAG", help="Lower-case letters, digits and '-'.")],
    undo: Annotated[bool, typer.Option("--undo", help="Take the tag's last change back.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Remove the tag.")] = False,
    reason: Reason = "",
) -> None:
    """Point a tag at a version, take that back, or remove it."""
    from modelyard.refs import ModelRef

    if undo and remove:
        raise InvalidInput("--undo and --remove exclude each other", remedy="give one of them")
    repository, parsed = yard_of(context).repository, ModelRef.parse(ref)
    if undo:
        now = repository.undo_tag(parsed.name, name, reason=reason)
        print(f"{parsed.name}:{name} is {now}" if now else f"{parsed.name} has no tag {name} any more")
        return
    if remove:
        repository.untag(parsed.name, name, reason=reason)
        print(f"{parsed.name} has no tag {name} any more")
        return
    if not parsed.selector:
        raise no_version(context, parsed)
    version = repository.tag(parsed.name, name, parsed.selector, reason=reason)
    print(f"{parsed.name}:{name} is {version.version}")


def history(context: typer.Context, name: Name, as_json: Json = False) -> None:
    """Who changed what of a model, when and why: versions, tags and deployments."""
    repository = yard_of(context).repository
    rows: list[dict[str, Any]] = [
        {"at": c.at, "where": "tags", "by": c.by, "what": c.why} for c in repository.history(name)
    ]
    for version in repository.registered(name):
        at, what = version.created_at.isoformat(), f"registered {version.version}"
        rows.append({"at": at, "where": "versions", "by": version.created_by, "what": what})
    for environment in ("staging", "production"):
        before = None
        for entry, deployments in repository.environment(environment).history():
            now = deployments.get(name)
            if now != before:
                rows.append({"at": entry.at, "where": environment, "by": entry.by, "what": entry.why})
            before = now
    rows.sort(key=lambda row: row["at"])
    if as_json:
        print_json(rows)
        return
    print_table(("AT", "WHERE", "BY", "WHAT"), [(r["at"][:19], r["where"], r["by"], r["what"]) for r in rows])


def verify(
    context: typer.Context,
    ref: Annotated[str | None, typer.Argument(metavar="REF", help="One version; else all.")] = None,
    signature: Annotated[bool, typer.Option("--signature", help="Check the version's signature too.")] = False,
    as_json: Json = False,
) -> None:
    """Hash stored model files again: those of one version, or all of them, and read every journal."""
    yard = yard_of(context)
    repository = yard.repository
    if signature:
        if not ref:
            raise InvalidInput("--signature is about one version", remedy="name it")
        made = yard.signatures.verify(repository.resolve(ref))
        print(f"signed ({made.method} {made.key[:12]})", file=sys.stderr)
    if ref:
        versions = [repository.resolve(ref)]
        damaged = repository.verify(versions[0])
    else:
        versions, damaged = repository.verify_all()
    if as_json:
        print_json([asdict(damage) for damage in damaged])
    elif not damaged:
        print("\n".join(f"{version.ref} is as registered" for version in versions) or "there is nothing to verify")
    if damaged:
        found = ", ".join(f"{damage.path} of {damage.ref} is {damage.what}" for damage in damaged[:_NAMED])
        more = f" and {len(damaged) - _NAMED} more" if len(damaged) > _NAMED else ""
        raise IntegrityError(
            f"not as registered: {found}{more}",
            remedy="restore the files from a backup, or register anew under another version",
        )


def _words(value: Any) -> Any:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value


def _pointing(tags: dict[str, str], version: str) -> list[str]:
    return sorted(tag for tag, pointed in tags.items() if pointed == version)
