"""Commands that bring models in: register, import."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelyard.cli.context import human_size, parse_value, transfer, yard_of
from modelyard.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from modelyard.repository import ModelVersion

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

    parsed = ModelRef.parse(ref)
    if parsed.version is None:
        raise InvalidInput(f"{ref!r} names no version", remedy=f"write {parsed.name}:v1.0.0")
    metadata, yard = _metadata(meta, values), yard_of(context)
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
    _advise(version)


def import_(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A file or folder.")],
    ref: Annotated[str | None, typer.Argument(metavar="REF", help="name or name:v1.2.0")] = None,
    meta: Meta = None,
    values: Values = None,
    tags: Tags = None,
    trust_pickle: TrustPickle = None,
) -> None:
    """Bring a model in: name, next version and description are found where not given."""
    from modelyard.refs import ModelRef

    parsed = ModelRef.parse(ref) if ref else None
    if parsed and parsed.tag:
        raise InvalidInput(f"{ref!r} names a tag, not a version", remedy="leave it out, or write name:v1.0.0")
    version = yard_of(context).importer.import_model(
        source,
        parsed.name if parsed else None,
        str(parsed.version) if parsed and parsed.version else None,
        metadata=_metadata(meta, values),
        tags=tags or (),
        trust_pickle=trust_pickle,
    )
    what = ", ".join(str(part) for part in (version.model.format, version.model.task) if part) or "unknown format"
    print(f"imported {version.ref} ({what}, {human_size(version.size)})")
    _advise(version)


def _advise(version: ModelVersion) -> None:
    """What is better known before the version is staged."""
    from modelyard.engines import engine_for

    try:
        engine_for(version.model)
    except InvalidInput as error:
        print(f"note: it can be kept, but not deployed: {error}", file=sys.stderr)
    if version.model.format == "torchscript" and "signature" not in version.metadata:
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
