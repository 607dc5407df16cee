"""Commands that bring models in: register, import."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelyard.cli.context import Json, human_size, parse_value, print_json, print_table, transfer, yard_of
from modelyard.cli.estate import Request, import_all
from modelyard.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from modelyard.importer.importer import Candidate
    from modelyard.repository import Inspection, ModelInfo, ModelVersion
    from modelyard.yard import Yard

Tags = Annotated[
    list[str] | None, typer.Option("--tag", metavar="TAG", help="Tag it; may be repeated. `staging` also stages it.")
]
Meta = Annotated[Path | None, typer.Option("--meta", metavar="FILE", help="A JSON file with metadata.")]
Values = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Metadata; dots nest; may be repeated.")
]
Lineage = Annotated[
    list[str] | None,
    typer.Option("--lineage", metavar="KIND=REF", help="What it was made of, as base_model=name:v1.0.0; repeatable."),
]
Include = Annotated[
    list[str] | None,
    typer.Option("--include", metavar="PATTERN", help="Only these files, as '*.gguf' (with --all: names); repeatable."),
]
Exclude = Annotated[
    list[str] | None, typer.Option("--exclude", metavar="PATTERN", help="Not these files (with --all: names).")
]
TrustPickle = Annotated[
    str | None, typer.Option("--trust-pickle", metavar="REASON", help="Take pickles, for a reason that is kept.")
]


def add_to(app: typer.Typer) -> None:
    for command in (register, import_):
        app.command(command.__name__.rstrip("_"))(command)


def register(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The model's file or folder.")],
    ref: Annotated[str, typer.Argument(metavar="REF", help="name:v1.2.0")],
    meta: Meta = None,
    values: Values = None,
    tags: Tags = None,
    lineage: Lineage = None,
    trust_pickle: TrustPickle = None,
) -> None:
    """Store a file or folder as a new version."""
    from modelyard.refs import ModelRef
    from modelyard.store.files import scan

    parsed, yard = ModelRef.parse(ref), yard_of(context)
    if parsed.version is None:
        following = yard.importer.next_version(parsed.name)
        raise InvalidInput(f"{ref!r} names no version", remedy=f"the next one is {parsed.name}:{following}")
    metadata = _metadata(meta, values)
    with transfer(f"register {ref}", sum(file.size for file in scan(path))) as progress:
        version = yard.repository.register_model(
            parsed.name,
            str(parsed.version),
            path,
            metadata,
            tags=tags or (),
            lineage=_lineage(lineage),
            trust_pickle=trust_pickle,
            progress=progress,
        )
    count = f"{len(version.files)} file{'' if len(version.files) == 1 else 's'}"
    print(f"registered {version.ref} ({count}, {human_size(version.size)})")
    _advise(yard, version)


def import_(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="An address; see docs/importing.md.")],
    ref: Annotated[str | None, typer.Argument(metavar="REF", help="name or name:v1.2.0")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every model version of SOURCE; see docs/migrating.md.")] = False,
    include: Include = None,
    exclude: Exclude = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be imported, and move nothing.")] = False,
    meta: Meta = None,
    values: Values = None,
    tags: Tags = None,
    trust_pickle: TrustPickle = None,
    as_json: Json = False,
) -> None:
    """Bring a model in: name, next version and description are found where not given."""
    from modelyard.refs import ModelRef
    from modelyard.store.files import Filter

    if every:
        if ref or tags:
            raise InvalidInput("--all takes no REF and no --tag", remedy="each version keeps its name, number and tags")
        request = Request(include or (), exclude or (), _metadata(meta, values), trust_pickle, dry_run, as_json)
        import_all(yard_of(context), source, request)
        return
    parsed, yard = ModelRef.parse(ref) if ref else None, yard_of(context)
    if parsed and parsed.tag:
        raise InvalidInput(f"{ref!r} names a tag, not a version", remedy="leave it out, or write name:v1.0.0")
    name, number = (parsed.name, parsed.version) if parsed else (None, None)
    chosen, metadata = Filter(include or (), exclude or ()), _metadata(meta, values)
    with yard.importer.open(
        source, name, str(number) if number else None, metadata=metadata, files=chosen
    ) as candidate:
        if dry_run:
            _print_candidate(candidate, yard.inspect(candidate.files), as_json=as_json)
            return
        with transfer(f"import {candidate.name}:{candidate.version}", candidate.size) as progress:
            version = yard.importer.register(candidate, tags=tags or (), trust_pickle=trust_pickle, progress=progress)
    if as_json:
        print_json(json.loads(version.to_json()))
    else:
        print(f"imported {version.ref} ({_kind(version.model)}, {human_size(version.size)})")
    _advise(yard, version)


def _kind(model: ModelInfo) -> str:
    return ", ".join(part for part in (model.format, model.task) if part) or "unknown format"


def _print_candidate(candidate: Candidate, found: Inspection, *, as_json: bool) -> None:
    """What an import would bring in."""
    model = {key: value for key, value in asdict(found.model).items() if value is not None}
    if as_json:
        files = [{"path": file.path, "size": file.size, "sha256": file.sha256} for file in candidate.files]
        said = {"metadata": candidate.metadata, "lineage": candidate.lineage, "pickles": found.pickles}
        print_json({"name": candidate.name, "version": str(candidate.version), "files": files, "model": model, **said})
        return
    count = f"{len(candidate.files)} file{'' if len(candidate.files) == 1 else 's'}"
    print(f"would import {candidate.name}:{candidate.version} ({count}, {human_size(candidate.size)})")
    facts = model | {f"pickle in {path}": why for path, why in found.pickles.items()}
    for key, value in facts.items():
        print(f"  {key}: {value}")
    print_table(("FILE", "SIZE", "SHA256"), [(f.path, human_size(f.size), f.sha256) for f in candidate.files])


def _advise(yard: Yard, version: ModelVersion) -> None:
    """What is better known before the version is staged."""
    try:
        yard.launching.choose(version)
    except InvalidInput as error:
        print(f"note: it can be kept, but not deployed: {error}", file=sys.stderr)
    if version.model.format in ("torchscript", "custom") and "signature" not in version.metadata:
        print("note: without a 'signature' in its metadata this model can't be validated", file=sys.stderr)


def _metadata(file: Path | None, values: list[str] | None) -> dict[str, Any]:
    """`--meta` below `--set`; a value that is JSON is taken as such, any other as text."""
    metadata: dict[str, Any] = _read_json_object(file) if file else {}
    for value in values or ():
        key, equals, text = value.partition("=")
        if not equals or not all(key.split(".")):
            raise InvalidInput(f"--set {value!r} is not key=value", remedy="write --set metrics.f1=0.9")
        *parents, last = key.split(".")
        inner = metadata
        for parent in parents:
            inner = inner.setdefault(parent, {})
            if not isinstance(inner, dict):
                raise InvalidInput(f"--set {value!r}: {parent!r} holds a value already", remedy="use another key")
        inner[last] = parse_value(text)
    return metadata


def _lineage(values: list[str] | None) -> dict[str, str]:
    lineage = {}
    for value in values or ():
        kind, equals, ref = value.partition("=")
        if not (equals and kind and ref):
            raise InvalidInput(f"--lineage {value!r} is not kind=ref", remedy="write --lineage base_model=name:v1.0.0")
        lineage[kind] = ref
    return lineage


def _read_json_object(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise NotFound(f"there is no file {file}", remedy="check the path") from None
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{file} can't be read as JSON: {error}", remedy="write {…}") from error
    if not isinstance(found, dict):
        raise InvalidInput(f"{file} holds no JSON object", remedy="write {…}")
    return found
