"""Commands that run models: serve, api, doctor."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Literal

import typer

from modelyard.cli.context import Json, log_to_stderr, print_json, yard_of
from modelyard.errors import InvalidInput, Unavailable


def add_to(app: typer.Typer) -> None:
    for command in (serve, api, doctor):
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
    from modelyard import hosting

    limits = {"memory_budget": memory_budget, "idle_timeout_s": idle_timeout}
    given = {key: value for key, value in limits.items() if value is not None}
    if given:
        _check_limits(memory_budget, idle_timeout)
        context.obj.override(serving=given)
    yard = yard_of(context)
    if pool:
        raise typer.Exit(hosting.serve_pool(yard, pool, host=host, port=port))
    if not refs:
        raise typer.BadParameter("name one model or more", param_hint="'REF'")
    if given:
        raise typer.Exit(hosting.serve_on_demand(yard, refs, host=host, port=port, trust_code=trust_code))
    served = hosting.serve(
        yard,
        refs,
        host=host,
        port=port,
        environment=environment,
        engine=engine,
        replica=replica_id,
        trust_code=trust_code,
    )
    raise typer.Exit(served)


def _check_limits(memory_budget: str | None, idle_timeout: float | None) -> None:
    """Raises InvalidInput that names the option: what is said of settings names settings."""
    from pydantic import ValidationError

    from modelyard.settings import ServingSettings

    if idle_timeout is not None and idle_timeout <= 0:
        raise InvalidInput(f"--idle-timeout can't be {idle_timeout:g}", remedy="give seconds above 0")
    try:
        ServingSettings.model_validate({"memory_budget": memory_budget})
    except ValidationError as error:
        raise InvalidInput(
            f"--memory-budget {memory_budget!r} is not a size", remedy="write it such as 4GiB or 500MB"
        ) from error


def api(context: typer.Context) -> None:
    """Answer what `modelyard up` answers at the API's address, and run nothing else. Ctrl-C ends it."""
    from modelyard.api.app import create_app
    from modelyard.api.server import ApiServer, serve

    log_to_stderr()
    yard = yard_of(context)
    yard.access.require("api", yard.settings.api.host)
    server = ApiServer(create_app(yard), yard.settings.api)
    addresses = f"store {yard.store.url}\napi {yard.settings.api.url}"
    serve(server, ready=lambda: print(addresses, flush=True))


_JUDGED = {True: "ok", False: "MISSING", None: "none yet"}


def doctor(context: typer.Context, as_json: Json = False) -> None:
    """Look at what modelyard needs on this machine, and say what is missing."""
    from modelyard.doctor import examine

    findings = examine(yard_of(context))
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            print(f"{_JUDGED[finding.good]:8} {finding.what}: {finding.detail}")
    missing = [finding.what for finding in findings if finding.good is False]
    if missing:
        raise Unavailable(f"missing: {', '.join(missing)}", remedy="each of these lines says what to do")
