"""The command predict: a deployed model is asked through the gateway."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelyard.cli.context import Reference, print_json, print_table, yard_of
from modelyard.errors import EngineError, InvalidInput, NotFound

if TYPE_CHECKING:
    from modelyard.deployment.asking import Raw
    from modelyard.deployment.client import Answer, ModelClient


def add_to(app: typer.Typer) -> None:
    app.command()(predict)


def predict(
    context: typer.Context,
    ref: Reference,
    texts: Annotated[
        list[str] | None, typer.Option("--text", metavar="TEXT", help="A text or a prompt; may be repeated.")
    ] = None,
    files: Annotated[
        list[Path] | None, typer.Option("--file", metavar="PATH", help="An image or a text file; may be repeated.")
    ] = None,
    query: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What the texts are compared with, for rerankers.")
    ] = None,
    as_json: Annotated[str | None, typer.Option("--json", help="The request's body.", metavar="BODY")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Print the whole answer as JSON, as --json does.")] = False,
) -> None:
    """Ask a deployed model through the gateway: texts and files as they are, or a request of your own."""
    from modelyard.deployment.asking import Raw
    from modelyard.deployment.client import ModelClient
    from modelyard.refs import ModelRef
    from modelyard.repository.environments import NAMES as ENVIRONMENTS

    _refuse_task(ref)
    yard, model = yard_of(context), ModelRef.parse(ref)
    given = Raw(tuple(texts or ()), tuple(files or ()), query)
    if bool(given.names) == (as_json is not None):
        raise InvalidInput("give either --text, --file or --json", remedy="see `modelyard predict --help`")
    if not all(given.texts):
        raise InvalidInput("--text holds an empty string", remedy="leave it out")
    request = None if as_json is None else _request(as_json)
    generates = request is None and yard.repository.resolve(model).model.task == "text-generation"
    name = model.name
    if model.digest or model.tag not in (None, *ENVIRONMENTS):  # the gateway knows names, environments and versions
        version = yard.repository.resolve(model)
        model = ModelRef(version.name, version.version)
    with ModelClient(yard.settings.gateway.url, str(model), token=yard.settings.token) as client:
        asked = _Asked(client, ref, name, raw)
        if request is not None:
            print_json(asked.checked(client.ask(request)).body)
        elif generates:
            asked.generate(given)
        else:
            asked.infer(given)


class _Asked:
    """One model, asked and shown. An answer that is none is told in one line."""

    def __init__(self, client: ModelClient, ref: str, name: str, raw: bool) -> None:
        self._client = client
        self._ref = ref
        self._name = name
        self._raw = raw

    def generate(self, given: Raw) -> None:
        """A language model's own words, prompt by prompt."""
        if given.query is not None:
            raise InvalidInput(f"{self._ref} takes no query", remedy="leave --query out")
        for prompt in given.read_texts():
            body = self.checked(self._client.ask({"messages": [{"role": "user", "content": prompt}]})).body
            if self._raw:
                print_json(body)
            else:
                print(_said(body))

    def infer(self, given: Raw) -> None:
        """A table with a row for each input, or of the likeliest labels of a single one."""
        from modelyard.deployment.asking import request_for, table_of

        described = self.checked(self._client.signature()).body
        body = self.checked(self._client.ask(request_for(given, described["inputs"], self._ref))).body
        if self._raw:
            print_json(body)
            return
        table = table_of(body, given.names, described.get("parameters", {}).get("labels", ()))
        print_table(table.header, table.rows)

    def checked(self, answer: Answer) -> Answer:
        """The answer. Raises NotFound and EngineError when it is an error."""
        from modelyard.deployment.client import message

        if answer.status == 404:
            raise NotFound(f"the gateway at {self._client.url} said {message(answer)}", remedy="see `modelyard status`")
        if answer.status != 200:
            raise EngineError(f"{self._ref} answered {message(answer)}", remedy=f"see `modelyard logs {self._name}`")
        return answer


def _said(body: Any) -> str:
    match body:
        case {"choices": [{"message": {"content": str(text)}}, *_]}:
            return text
    raise EngineError("the answer holds no message", remedy="look at it with --raw")


def _request(text: str) -> dict[str, Any]:
    try:
        request = json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"--json is not JSON: {error}", remedy="write {…}") from error
    if not isinstance(request, dict):
        raise InvalidInput("--json holds no JSON object", remedy="write {…}")
    if request.get("stream"):
        raise InvalidInput("predict does not stream", remedy="leave out stream")
    return request


def _refuse_task(ref: str) -> None:
    head, colon, task = ref.partition(":")
    if colon and head == "task":
        raise InvalidInput(
            f"predict asks models, and {ref!r} is a task",
            remedy=f"ask it at /v1/embeddings, or with `modelyard embed --task {task or 'TASK'}`",
        )
