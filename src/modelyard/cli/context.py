"""What every command shares: the yard of this call, and how results are printed."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from modelyard.errors import InvalidInput
    from modelyard.refs import ModelRef
    from modelyard.store.transfer import Progress
    from modelyard.yard import Yard

_NUMBER = r"-?[0-9][0-9.eE+-]*"
_NUMBERS = re.compile(rf"\[\n\s+{_NUMBER}(?:,\n\s+{_NUMBER})*\n\s+\]")  # no text of JSON holds a line break

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Kept in the history.")]
Reference = Annotated[str, typer.Argument(metavar="REF", help="name, name:v1.2.0 or name:tag.")]
Selected = Annotated[str, typer.Argument(metavar="REF", help="name:v1.2.0 or name:tag.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="A model's name.")]

Include = Annotated[
    list[str] | None, typer.Option("--include", metavar="PATTERN", help="Only these files, as '*.gguf'; repeatable.")
]
Exclude = Annotated[
    list[str] | None, typer.Option("--exclude", metavar="PATTERN", help="Not these files; may be repeated.")
]


class Session:
    """One call of the command line."""

    def __init__(self, store: str | None) -> None:
        self._overrides: dict[str, Any] = {"store": store} if store else {}

    def override(self, **settings: Any) -> None:
        """Settings that this call's options give."""
        self._overrides |= settings

    @property
    def yard(self) -> Yard:
        from modelyard.settings import load_settings
        from modelyard.yard import Yard

        return Yard(load_settings(**self._overrides))


def yard_of(context: typer.Context) -> Yard:
    session: Session = context.obj
    return session.yard


def exact(context: typer.Context, ref: str) -> tuple[str, str]:
    """The name and version of a reference that must say which: a change is never made to what a tag happens to mean."""
    from modelyard.refs import ModelRef

    parsed = ModelRef.parse(ref)
    if parsed.version is None:
        raise no_version(context, parsed)
    return parsed.name, str(parsed.version)


def no_version(context: typer.Context, ref: ModelRef, *, or_tag: str = "") -> InvalidInput:
    """What to say of a reference that leaves the version open. Raises NotFound when there is no such model at all."""
    from modelyard.errors import InvalidInput

    newest = yard_of(context).repository.versions(ref.name)[-1]
    tagged = f" or {ref.name}:{or_tag}" if or_tag else ""
    return InvalidInput(f"{str(ref)!r} names no version", remedy=f"write {ref.name}:{newest}{tagged}")


def parse_value(text: str) -> Any:
    """A value that is JSON is taken as such, any other as text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def log_to_stderr() -> None:
    """For commands that run until they are told to stop."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    for client in ("httpx", "httpx2"):  # the second one is lightkube's
        logging.getLogger(client).setLevel(logging.WARNING)


def print_json(value: Any) -> None:
    """A list of numbers on one line, everything else on lines of its own."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    print(_NUMBERS.sub(lambda found: re.sub(r"\s+", " ", found[0]).replace("[ ", "[").replace(" ]", "]"), text))


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Aligned columns, plain enough for grep and awk."""
    cells = [[str(cell) if cell is not None else "-" for cell in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def human_size(count: float) -> str:
    """Bytes for people, in binary units."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


@contextmanager
def transfer(label: str, total: int) -> Iterator[Progress]:
    """A progress bar on a terminal, nothing otherwise. `total` in bytes."""
    from modelyard.store.transfer import no_progress

    if not sys.stderr.isatty():
        yield no_progress
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn(label), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda count: bar.advance(task, count)
