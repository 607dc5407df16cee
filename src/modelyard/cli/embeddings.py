"""Commands that embed in this process: embed TEXT…, embed compare."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from modelyard.cli.context import Json, print_json, print_table, yard_of

if TYPE_CHECKING:
    from modelyard.embeddings.comparison import Comparison

_DEFAULT = "texts"


class _TextsByDefault(TyperGroup):
    """`embed TEXT…` is `embed texts TEXT…`; a text that is called like a command comes after `--`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, "--help"):
            args = [_DEFAULT, *args]
        return super().parse_args(ctx, args)


embed = typer.Typer(
    help="Embed texts: `embed TEXT…`, or compare two models. `embed -- compare` embeds the word.",
    cls=_TextsByDefault,
    rich_markup_mode=None,
)


def add_to(app: typer.Typer) -> None:
    app.add_typer(embed, name="embed")


@embed.command(_DEFAULT)
def texts(
    context: typer.Context,
    words: Annotated[list[str], typer.Argument(metavar="TEXT", help="A text; several may be given.")],
    task: Annotated[
        str, typer.Option(metavar="TASK", help="Whose model, as `config get embeddings` says.")
    ] = "semantic-search",
    key: Annotated[
        str | None, typer.Option(metavar="KEY", help="Who asks: always gets the same of several variants.")
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="REF", help="This model, whatever the task's is.")] = None,
    as_json: Json = False,
) -> None:
    """Print the vectors of texts, a JSON object a line, each with the model that made it. `texts` may be left out."""
    embeddings = yard_of(context).embeddings
    found = embeddings.model(model) if model else embeddings.get_embedding_model(task, key=key)
    vectors = found.encode(words).tolist()
    if as_json:
        about = {"model": found.name, "version": found.version, "digest": found.digest, "stamp": found.stamp}
        rows = [{"text": text, "embedding": vector} for text, vector in zip(words, vectors, strict=True)]
        print_json(about | {"dimension": found.dimension, "embeddings": rows})
        return
    for text, vector in zip(words, vectors, strict=True):
        print(json.dumps({"text": text, "model": found.stamp, "embedding": vector}, ensure_ascii=False))


@embed.command()
def compare(
    context: typer.Context,
    first: Annotated[str, typer.Argument(metavar="A", help="A model: name, name:v1.2.0 or name:tag.")],
    second: Annotated[str, typer.Argument(metavar="B", help="The other model.")],
    dataset: Annotated[
        Path, typer.Option(metavar="PATH", help="JSON lines with query, positives, negatives; or a folder as BEIR's.")
    ],
    k: Annotated[int, typer.Option("--k", metavar="K", min=1, help="How many documents of a ranking count.")] = 10,
    batch_size: Annotated[int, typer.Option(metavar="N", min=1, help="Texts computed together.")] = 32,
    as_json: Json = False,
) -> None:
    """Compare two models: what they find, how far they agree, how fast they are."""
    from modelyard.embeddings.comparison import compare as compare_models
    from modelyard.embeddings.dataset import read_dataset

    data = read_dataset(dataset)
    embeddings = yard_of(context).embeddings
    one, other = embeddings.model(first), embeddings.model(second)
    total = 2 * (len(data.documents) + len(data.queries))
    with _progress(total) as advance:
        found = compare_models(one, other, data, k=k, batch_size=batch_size, progress=advance)
    if as_json:
        print_json(asdict(found))
    else:
        _print_comparison(found)


def _print_comparison(found: Comparison) -> None:
    first, second = found.first, found.second

    def row(what: str, one: float, other: float, difference: Any) -> tuple[str, ...]:
        interval = f"{difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"
        return what, f"{one:.4f}", f"{other:.4f}", interval

    print(f"A  {first.model}\nB  {second.model}\n")
    rows = (
        row(f"recall@{found.k}", first.recall, second.recall, found.recall),
        row(f"nDCG@{found.k}", first.ndcg, second.ndcg, found.ndcg),
        ("texts/s", f"{first.speed:.1f}", f"{second.speed:.1f}", f"x{second.speed / first.speed:.2f}"),
        ("dimension", first.dimension, second.dimension, ""),
    )
    print_table(("", "A", "B", "B - A [95 %]"), rows)
    print(
        f"\nagreement: {found.overlap:.1%} of the first {found.k} are the same, "
        f"rank correlation {found.rank_correlation:.3f}"
        f"\nqueries: {found.queries}, documents: {found.documents}"
    )


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, nothing otherwise."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("embedding", total=total)
        yield lambda count: bar.advance(task, count)
