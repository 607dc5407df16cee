"""Commands of rollouts in production: promote, with what may be done with a rollout under way, and rollback."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from modelyard.cli.context import Json, Name, Reason, print_json, print_table, yard_of
from modelyard.cli.deployment import MinReplicas, Replicas, SuiteFile, Wait, goes_on, named_version, suite_in, wait_for
from modelyard.errors import Conflict, ModelyardError

if TYPE_CHECKING:
    from modelyard.deployment.preview import Preview
    from modelyard.deployment.promotion import RolloutOptions
    from modelyard.gateway.statistics import Statistics
    from modelyard.repository import Deployment
    from modelyard.yard import Yard

Reference = Annotated[
    str, typer.Argument(metavar="REF", help="name:v1.2.0 or name:tag; for a rollout under way, its model's name.")
]
Strategy = Annotated[
    Literal["rolling", "canary"] | None,
    typer.Option(help="rolling: replica by replica; canary: a growing share of the requests. Else as configured."),
]
Steps = Annotated[
    str | None,
    typer.Option(
        metavar="PERCENTAGES", help="Of a canary: 5,25,50; each may have its seconds, or `resume`: 5:30,25,50:resume."
    ),
]
StepPause = Annotated[
    float | None, typer.Option(metavar="SECONDS", min=0, help="How long a step takes that has no seconds of its own.")
]
Surge = Annotated[int | None, typer.Option(metavar="COUNT", min=0, max=64, help="Replicas beyond those wanted.")]
Unavailable = Annotated[
    int | None, typer.Option(metavar="COUNT", min=0, max=64, help="Replicas that may be missing meanwhile.")
]
KeepWarm = Annotated[
    float | None, typer.Option(metavar="SECONDS", min=0, help="How long old replicas stay ready after the switch.")
]
Analysis = Annotated[
    bool | None, typer.Option("--analysis/--no-analysis", help="Hold the new version against the old one, and judge.")
]
Metric = Annotated[
    list[str] | None,
    typer.Option(
        metavar="METRIC",
        help="A function of yours to compare both versions by, with what is better and how much worse is allowed: "
        "quality.py:error:lower:0.02; may be repeated.",
    ),
]


def add_to(app: typer.Typer) -> None:
    for command in (promote, rollback):
        app.command()(command)


def promote(
    context: typer.Context,
    ref: Reference,
    suite: SuiteFile = None,
    replicas: Replicas = None,
    min_replicas: MinReplicas = None,
    strategy: Strategy = None,
    steps: Steps = None,
    step_pause: StepPause = None,
    surge: Surge = None,
    unavailable: Unavailable = None,
    keep_warm: KeepWarm = None,
    analysis: Analysis = None,
    metric: Metric = None,
    force: Annotated[bool, typer.Option("--force", help="Without evidence or room; needs --reason.")] = False,
    reason: Reason = "",
    wait: Wait = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    pause: Annotated[bool, typer.Option("--pause", help="Let the rollout under way stay where it is.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Let it go on, past what its step waits for.")] = False,
    abort: Annotated[bool, typer.Option("--abort", help="Let it go back to the version that serves.")] = False,
    as_json: Json = False,
) -> None:
    """Roll a validated version out to production, without downtime; or pause, resume or abort the rollout under way."""
    verbs = [verb for verb, wanted in (("pause", pause), ("resume", resume), ("abort", abort)) if wanted]
    if len(verbs) > 1:
        raise typer.BadParameter("give only one of --pause, --resume, --abort")
    if verbs:
        _need_alone(context, verbs[0])
        _intervene(yard_of(context), ref, verbs[0], reason)
        return
    from modelyard.deployment.promotion import plain

    options = _options(strategy, steps, step_pause, surge, unavailable, keep_warm, analysis, metric)
    yard, (name, version) = yard_of(context), named_version(context, ref)
    wish: dict[str, Any] = {"replicas": replicas, "min_replicas": min_replicas, "rollout": options}
    wish["suite"] = suite_in(suite)
    if dry_run:
        _show(f"{name}:{version}", yard.deployments.preview(name, version, **wish), as_json)
        if not force and not as_json:
            print("not looked at here: evidence, without which it is first validated in staging")
        return
    before = _counted(yard)
    asked = yard.deployments.promote_to_production(name, version, **wish, force=force, reason=reason, wait=False)
    _note(plain(asked))
    if wait:
        _follow(yard, name, asked, before, as_json)
    else:
        print(f"{name}:{version} is asked for in production")


def rollback(context: typer.Context, name: Name, reason: Reason = "", wait: Wait = True) -> None:
    """Go back to the version that served production before."""
    yard = yard_of(context)
    asked = yard.deployments.rollback(name, reason=reason, wait=False)
    if wait:
        wait_for(yard, name, asked, "production")
    print(f"{name}:{asked.target} {'serves' if wait else 'is asked for'} in production")


def _options(
    strategy: Literal["rolling", "canary"] | None,
    steps: str | None,
    step_pause_s: float | None,
    surge: int | None,
    unavailable: int | None,
    keep_warm_s: float | None,
    analysis: bool | None,
    metrics: list[str] | None,
) -> RolloutOptions:
    from modelyard.deployment.promotion import RolloutOptions

    return RolloutOptions(
        strategy, steps, step_pause_s, surge, unavailable, keep_warm_s, analysis, tuple(metrics or ()) or None
    )


def _need_alone(context: typer.Context, verb: str) -> None:
    """What else is said about a rollout would have no effect on the one under way."""
    sources = ((name, context.get_parameter_source(name)) for name in context.params)
    given = [name for name, source in sources if source is not None and source.name == "COMMANDLINE"]
    for name in given:
        if name not in ("ref", "reason", verb):
            option = "json" if name == "as_json" else name.replace("_", "-")
            raise typer.BadParameter(f"--{option} says nothing to --{verb}; leave it out")


def _intervene(yard: Yard, ref: str, verb: str, reason: str) -> None:
    from modelyard.deployment.rollout import describe
    from modelyard.refs import ModelRef

    asked = ModelRef.parse(ref)
    name, target = asked.name, yard.repository.environment("production").get(asked.name).target
    if asked != ModelRef(name) and target and (asked.version, asked.tag) != (target.version, None):
        raise Conflict(f"the last rollout of {name} is to {target}, not to {ref}", remedy=f"name it, or {name} alone")
    now = getattr(yard.deployments, verb)(name, reason=reason)
    goes_back = f"it goes back to {now.target}" if now.target else "it is not served"
    print(f"{name}: {describe(now) or goes_back}")


def _show(ref: str, seen: Preview, as_json: bool) -> None:
    if as_json:
        print_json(asdict(seen))
        return
    print(f"{ref} in production, if everything goes well:")
    for number, step in enumerate(seen.steps, 1):
        print(f"{number:3}. {step}")
    most = f"{seen.processes} replicas run" if seen.processes != 1 else "1 replica runs"
    print(f"at most {most}, never fewer than {seen.least} get requests")
    _note(seen.note)


def _note(text: str) -> None:
    if text:
        print(f"note: {text}", file=sys.stderr)


def _follow(yard: Yard, name: str, asked: Deployment, before: Statistics | None, as_json: bool) -> None:
    """Wait, showing how far it is on a terminal; then say how it went, also when it went back."""
    done: Deployment | None = None
    try:
        with goes_on(), _progress(f"{name}:{asked.target}") as told:
            done = yard.deployments.wait(name, asked, "production", told=told)
    except ModelyardError:
        _report(f"{name}:{asked.target}", done, _served(name, before, _counted(yard)), as_json=as_json)
        raise
    _report(f"{name}:{asked.target}", done, _served(name, before, _counted(yard)), as_json=as_json)


def _report(ref: str, done: Deployment | None, rows: list[tuple[str, int, int]], *, as_json: bool) -> None:
    """How a rollout went, None: not well, and who had which requests meanwhile."""
    from modelyard.deployment.rollout import describe

    name, _, version = ref.partition(":")
    if as_json:
        outcome, keys = done.outcome if done else "failed", ("version", "requests", "failed")
        served = [dict(zip(keys, row, strict=True)) for row in rows]
        print_json({"model": name, "version": version, "outcome": outcome, "served": served})
        return
    if done:
        state = describe(done)
        print(f"{name}: {state}" if state else f"{ref} serves in production")
    if rows:
        print_table(("VERSION", "REQUESTS", "FAILED"), rows)


def _counted(yard: Yard) -> Statistics | None:
    """What the gateway of this machine has counted; None where it does not run."""
    try:
        return yard.gateway_statistics()
    except ModelyardError:
        return None


def _served(name: str, before: Statistics | None, after: Statistics | None) -> list[tuple[str, int, int]]:
    """What each version had in production in between: requests, and those that failed by its fault."""
    from modelyard.deployment.analyst import window

    if after is None:
        return []
    mine = sorted(
        {served for served, _ in after.requests if (served.model, served.environment) == (name, "production")}
    )
    rows = []
    for served in mine:
        now = window(after, served)
        did = now.since(window(before, served)) if before else now
        did = did or now  # the gateway was started anew in between
        if did.requests:
            rows.append((served.version, did.requests, did.failures))
    return rows


@contextmanager
def _progress(what: str) -> Iterator[Callable[[Deployment], None]]:
    """A line that says how far a rollout is, on a terminal."""
    from modelyard.deployment.rollout import describe

    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.status import Status

    with Status(what, console=Console(stderr=True)) as line:
        yield lambda now: line.update(f"{what}  {describe(now)}")
