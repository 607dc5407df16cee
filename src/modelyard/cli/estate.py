"""`modelyard import --all`: what is said of an estate that is taken over."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any

from modelyard.cli.context import human_size, print_json, print_table
from modelyard.errors import NotFound, Refused

if TYPE_CHECKING:
    from modelyard.importer.estate import Outcome
    from modelyard.store.transfer import Progress
    from modelyard.yard import Yard

_SAID = {"imported": "imported", "present": "already there", "possible": "would be imported", "refused": "refused"}


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for besides the source."""

    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    metadata: dict[str, Any] = field(default_factory=dict)
    trust_pickle: str | None = None
    dry_run: bool = False
    as_json: bool = False


def import_all(yard: Yard, source: str, request: Request) -> None:
    """Take every model version of a source over. Raises Refused, after the list, when some did not come."""
    from modelyard.importer.buckets import estate_of
    from modelyard.importer.estate import Takeover, failed, plan

    (estate, address), repository = estate_of(source), yard.repository
    items = plan(estate.list(address), taken=repository.list_models(), include=request.include, exclude=request.exclude)
    if not items:
        raise NotFound(f"{source} holds no model that is chosen", remedy="check the address, --include and --exclude")
    with _progress(len(items)) as (progress, done):
        takeover = Takeover(
            repository,
            estate,
            metadata=request.metadata,
            trust_pickle=request.trust_pickle,
            progress=progress,
        )
        outcomes = takeover.run(items, dry_run=request.dry_run, done=done)
    _print(outcomes, request)
    if refused := len(list(failed(outcomes))):
        raise Refused(
            f"{refused} of {len(outcomes)} model versions {'would' if request.dry_run else 'did'} not come",
            remedy="mend what is said of each, then run the same command again",
        )


def _print(outcomes: Sequence[Outcome], request: Request) -> None:
    if request.as_json:
        print_json([_document(outcome) for outcome in outcomes])
        return
    if request.dry_run:
        header = ("NAME", "VERSION", "BECOMES", "SIZE", "STATE")
        print_table(header, [_row(outcome) for outcome in outcomes])
    counts = {state: sum(outcome.state == state for outcome in outcomes) for state in _SAID}
    moved = sum(outcome.size or 0 for outcome in outcomes if outcome.state in ("imported", "possible"))
    said = ", ".join(f"{count} {_SAID[state]}" for state, count in counts.items() if count)
    print(f"{len(outcomes)} model versions: {said} ({human_size(moved)})")
    for outcome in outcomes:
        if outcome.state == "refused":
            print(f"  {_there(outcome)}: {outcome.why}")


def _row(outcome: Outcome) -> tuple[str | None, ...]:
    listed, item = outcome.item.listed, outcome.item
    size = None if outcome.size is None else human_size(outcome.size)
    return (listed.name, listed.version, item.ref, size, _SAID[outcome.state])


def _there(outcome: Outcome) -> str:
    listed = outcome.item.listed
    return f"{listed.name} {listed.version}".rstrip()


def _document(outcome: Outcome) -> dict[str, Any]:
    listed = outcome.item.listed
    return {
        "name": listed.name,
        "version": listed.version,
        "address": listed.address,
        "ref": outcome.item.ref,
        "tags": list(listed.tags),
        "state": outcome.state,
        "size": outcome.size,
        "why": outcome.why or None,
    }


@contextmanager
def _progress(total: int) -> Iterator[tuple[Progress, Callable[[Outcome], object]]]:
    """Model versions done and bytes moved, on a terminal; nothing otherwise."""
    from modelyard.store.transfer import no_progress

    if not sys.stderr.isatty():
        yield no_progress, lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[moved]}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task, moved, lock = bar.add_task("", total=total, moved=""), 0, Lock()

        def progress(count: int) -> None:
            nonlocal moved
            with lock:
                moved += count
                bar.update(task, moved=human_size(moved))

        yield progress, lambda _: bar.advance(task)
