"""The application: command groups put together, and errors turned into one line and an exit code."""

from __future__ import annotations

import sys
import tempfile
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

import modelyard
from modelyard.cli import (
    catalog,
    cluster,
    configuration,
    deployment,
    embeddings,
    importing,
    lifecycle,
    predicting,
    promoting,
    repository,
    running,
    safety,
    stores,
    tokens,
    validating,
)
from modelyard.cli.context import Session
from modelyard.errors import ModelyardError

app = typer.Typer(
    name="modelyard",
    help=modelyard.__doc__,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for group in (
    stores,
    importing,
    catalog,
    repository,
    safety,
    lifecycle,
    configuration,
    embeddings,
    running,
    predicting,
    validating,
    deployment,
    promoting,
    cluster,
    tokens,
):
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
    """Run one command line and return its exit code; an empty one asks for help."""
    command = typer.main.get_command(app)
    try:
        result = command.main(_store_first(arguments) or ["--help"], prog_name="modelyard", standalone_mode=False)
    except typer.TyperException as error:  # wrong usage
        context: typer.Context | None = getattr(error, "ctx", None)
        command_path = context.command_path if context else "modelyard"
        what: str = getattr(error, "format_message", error.__str__)()
        what = what.replace("Value error, ", "")  # the parser's own words
        _complain(f"{what.rstrip('.')}; see `{command_path} --help`")
        return 2
    except (typer.Abort, KeyboardInterrupt):
        _complain("interrupted")
        return 130
    except ModelyardError as error:
        _complain(str(error))
        return error.exit_code
    except BrokenPipeError:  # for `main` to end quietly
        raise
    except OSError as error:
        _complain(f"{error.filename or 'the output'} can't be used: {error.strerror or error}")
        return 1
    except Exception as error:
        _complain(f"unexpected {type(error).__name__}: {error}; report it with {_keep_traceback()}")
        return 1
    return result if isinstance(result, int) else 0


def _store_first(arguments: Sequence[str]) -> list[str]:
    """`--store URL` may stand anywhere on the line."""
    line = list(arguments)
    for index, argument in enumerate(line):
        if argument == "--":
            break
        if argument == "--store" or argument.startswith("--store="):
            end = index + 1 if "=" in argument else index + 2
            if end > len(line):
                return ["--store"]  # without its value, which the parser then says
            return [*line[index:end], *line[:index], *line[end:]]
    return line


def _keep_traceback() -> str:
    """The traceback of a defect goes to a file: nobody who only uses a command should have to look at it."""
    with tempfile.NamedTemporaryFile("w", prefix="modelyard-", suffix=".txt", delete=False) as file:
        file.write(traceback.format_exc())
    return file.name


def _complain(message: str) -> None:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
