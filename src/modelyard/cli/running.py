"""Commands that run and ask models: serve, api, predict, doctor."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any, Literal

import typer

from modelyard.cli.context import Json, Reference, log_to_stderr, print_json, yard_of
from modelyard.errors import EngineError, InvalidInput, NotFound, Unavailable


def add_to(app: typer.Typer) -> None:
    for command in (serve, api, predict, doctor):
        app.command()(command)


def serve(
    context: typer.Context,
    refs: Annotated[
        list[str] | None, typer.Argument(metavar="REF", help="name, name:v1.2.0 or name:tag; a language model alone.")
    ] = None,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="PORT", min=1, max=65535, help="The port to listen on.")] = 8080,
    memory_budget: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Load models when they are asked for, within such as 4GiB.")
    ] = None,
    idle_timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="The same, and unload what is idle for so long.")
    ] = None,
    engine: Annotated[
        Literal["vllm", "ollama", "llamacpp", "pytorch"] | None,
        typer.Option(metavar="ENGINE", help="The engine, instead of the one chosen by the rule."),
    ] = None,
    pool: Annotated[str | None, typer.Option(hidden=True)] = None,
    trust_code: Annotated[
        bool, typer.Option("--trust-code", help="Let these models run Python code of their own (handler.py).")
    ] = False,
    replica_id: Annotated[str, typer.Option(hidden=True)] = "",  # seen in the process list
    environment: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Serve models in this process, with the engine chosen for them, until SIGTERM."""
    limits = {"memory_budget": memory_budget, "idle_timeout_s": idle_timeout}
    given = {key: value for key, value in limits.items() if value is not None}
    if given:
        context.obj.override(serving=given)
    yard = yard_of(context)
    if pool:
        raise typer.Exit(yard.serve_pool(pool, host=host, port=port))
    if not refs:
        raise typer.BadParameter("name one model or more", param_hint="'REF'")
    if given:
        raise typer.Exit(yard.serve_on_demand(refs, host=host, port=port, trust_code=trust_code))
    served = yard.serve(
        refs,
        host=host,
        port=port,
        environment=environment,
        engine=engine,
        replica=replica_id,
        trust_code=trust_code,
    )
    raise typer.Exit(served)


def api(context: typer.Context) -> None:
    """Answer what `modelyard up` answers at the API's address, and run nothing else. Ctrl-C ends it."""
    from modelyard.api.app import create_app
    from modelyard.api.server import ApiServer, serve

    log_to_stderr()
    yard = yard_of(context)
    yard.access.require("api", yard.settings.api.host)
    server = ApiServer(create_app(yard), yard.settings.api)
    print(f"store {yard.store.url}\napi {yard.settings.api.url}", flush=True)
    serve(server)


def predict(
    context: typer.Context,
    ref: Reference,
    text: Annotated[str | None, typer.Option(metavar="TEXT", help="A prompt, or a text to embed.")] = None,
    as_json: Annotated[str | None, typer.Option("--json", help="The request's body.", metavar="BODY")] = None,
) -> None:
    """Ask a deployed model through the gateway."""
    from modelyard.deployment.client import ModelClient, message
    from modelyard.refs import ModelRef
    from modelyard.repository.environments import NAMES as ENVIRONMENTS

    yard, model = yard_of(context), ModelRef.parse(ref)
    if as_json is not None and text is None:
        request = _request(as_json)
    elif text is None or as_json is not None:
        raise InvalidInput("give either --text or --json", remedy="see `modelyard predict --help`")
    elif yard.repository.resolve(model).model.task == "text-generation":
        request = {"messages": [{"role": "user", "content": text}]}
    else:
        request = {"input": text}
    if model.digest or model.tag not in (None, *ENVIRONMENTS):  # the gateway knows names, environments and versions
        version = yard.repository.resolve(model)
        model = ModelRef(version.name, version.version)
    with ModelClient(yard.settings.gateway.url, str(model), token=yard.settings.token) as client:
        answer = client.ask(request)
    if answer.status == 404:
        raise NotFound(
            f"the gateway at {yard.settings.gateway.url} said {message(answer)}", remedy="see `modelyard status`"
        )
    if answer.status != 200:
        raise EngineError(f"{ref} answered {message(answer)}", remedy=f"see `modelyard logs {model.name}`")
    print_json(answer.body)


def _request(text: str) -> dict[str, Any]:
    try:
        request = json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"--json is not JSON: {error}", remedy="write {…}") from error
    if not isinstance(request, dict):
        raise InvalidInput("--json holds no JSON object", remedy="write {…}")
    return request


def doctor(context: typer.Context, as_json: Json = False) -> None:
    """Look at what modelyard needs on this machine, and say what is missing."""
    from modelyard.doctor import examine

    findings = examine(yard_of(context))
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            print(f"{'ok      ' if finding.good else 'MISSING '} {finding.what}: {finding.detail}")
    missing = [finding.what for finding in findings if not finding.good]
    if missing:
        raise Unavailable(f"missing: {', '.join(missing)}", remedy="each of these lines says what to do")
