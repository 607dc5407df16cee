"""The application: command groups put together, and errors turned into one line and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import click
import typer

import modelyard
from modelyard.cli import configuration, deployment, repository, running
from modelyard.cli.context import Session
from modelyard.errors import ModelyardError

app = typer.Typer(
    name="modelyard",
    help=modelyard.__doc__,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for group in (repository, configuration, running, deployment):
    group.add_to(app)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"modelyard {modelyard.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    store: Annotated[
        str | None, typer.Option(help="The store: s3://bucket/prefix, gs://…, az://… or a folder.", metavar="URL")
    ] = None,
    version: Annotated[bool, typer.Option("--version", help="Print the version.", callback=_version)] = False,  # noqa: ARG001
) -> None:
    context.obj = Session(store)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    command = typer.main.get_command(app)
    try:
        result = command.main(_store_first(arguments), prog_name="modelyard", standalone_mode=False)
    except click.ClickException as error:
        _complain(f"{error.format_message()}; see `{_path(error)} --help`")
        return error.exit_code
    except (click.exceptions.Abort, KeyboardInterrupt):
        return 130
    except ModelyardError as error:
        _complain(str(error))
        return 1
    return result if isinstance(result, int) else 0


def _store_first(arguments: Sequence[str]) -> list[str]:
    """`--store URL` may stand anywhere on the line."""
    before, after = list(arguments), []
    for index, argument in enumerate(before):
        if argument == "--":
            break
        if argument == "--store" and index + 1 < len(before):
            after = [argument, before[index + 1]]
            return [*after, *before[:index], *before[index + 2 :]]
        if argument.startswith("--store="):
            return [argument, *before[:index], *before[index + 1 :]]
    return before


def _path(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return context.command_path if context else "modelyard"


def _complain(message: str) -> None:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
