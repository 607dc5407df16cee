"""Models in an MLflow server: registered ones, logged ones, and artifacts of runs. `mlflow.address` has the grammar.

What MLflow calls version 3 is v3.0.0 here. Nothing needs MLflow's own package.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from urllib.parse import quote

from modelyard.errors import InvalidInput, NotFound
from modelyard.importer.mlflow.address import SCHEMES, Address, parse
from modelyard.importer.mlflow.artifacts import artifacts
from modelyard.importer.mlflow.client import Server, connect, without_user
from modelyard.importer.mlflow.documents import (
    Download,
    Logged,
    Models,
    ModelVersion,
    OneExperiment,
    OneLogged,
    OneModel,
    OneRun,
    OneVersion,
    RegisteredModel,
    Run,
    Versions,
    pairs,
)
from modelyard.importer.mlflow.metadata import Known, metadata, read_mlmodel, tag_of
from modelyard.importer.remote import Patience
from modelyard.importer.sources.source import Fetched, Listed
from modelyard.store.files import File

_PAGE = 1000
_MOST_MLMODEL = 1 << 20


class MLflowSource:
    example = "mlflow://host:port/models/NAME/VERSION"

    def __init__(self, patience: Patience | None = None) -> None:
        self._patience = patience or Patience()

    def matches(self, source: str) -> bool:
        return source.partition("://")[0] in SCHEMES

    @contextmanager
    def open(self, source: str) -> Iterator[Fetched]:
        address = parse(source)
        with connect(address.server, self._patience) as server:
            if address.model:
                found = _registered(server, address)
            elif address.logged:
                found = _of_logged(server, _logged(server, address.logged))
            elif address.run:
                found = _of_run(server, address.run, address.path)
            else:
                raise InvalidInput(f"{source} names no model", remedy=f"write {self.example}, or import it with --all")
            with found as fetched:
                yield fetched

    def list(self, source: str) -> Iterator[Listed]:
        """Registered models alone: all, or the versions of one. Prompts, which MLflow keeps among them, are none."""
        address = parse(source)
        if address.run or address.logged or address.version or address.alias:
            raise InvalidInput(f"{source} names one model", remedy="leave out --all, or name the server alone")
        with connect(address.server, self._patience) as server:
            models = {model.name: model for model in _models(server, address.model)}
            if address.model and not models:
                raise NotFound(f"there is no model {address.model!r} at {server.name}", remedy="check the name")
            for version in _versions(server, address.model):
                if version.name in models:
                    yield _as_listed(address, models[version.name], version)


def _as_listed(address: Address, model: RegisteredModel, version: ModelVersion) -> Listed:
    aliases = sorted(each.alias for each in model.aliases if each.version == version.version)
    tags = tuple(tag for tag in map(tag_of, aliases) if tag)
    where = address.of(version.name, version.version)
    return Listed(where, version.name, version.version, _pin(version), tags)


def _pin(version: ModelVersion) -> str:
    """What tells this version from any other that ever had its name and number."""
    return f"mlflow://models/{quote(version.name, safe='')}/{version.version}@{version.creation_timestamp}"


def _models(server: Server, name: str | None) -> Iterator[RegisteredModel]:
    token = ""
    while True:
        query = _query(name, token)
        found = server.get(Models, "mlflow/registered-models/search", "list of models", **query)
        yield from found.registered_models
        if not (token := found.next_page_token):
            return


def _versions(server: Server, name: str | None) -> Iterator[ModelVersion]:
    token = ""
    while True:
        query = _query(name, token)
        found = server.get(Versions, "mlflow/model-versions/search", "list of model versions", **query)
        yield from found.model_versions
        if not (token := found.next_page_token):
            return


def _query(name: str | None, token: str) -> dict[str, str | int]:
    query: dict[str, str | int] = {"max_results": _PAGE}
    if name:
        mark = '"' if "'" in name else "'"
        query["filter"] = f"name = {mark}{name}{mark}"
    return query | ({"page_token": token} if token else {})


@contextmanager
def _registered(server: Server, address: Address) -> Iterator[Fetched]:
    version, model = _version(server, address)
    what = f"version {version.version} of model {version.name}"
    if version.status != "READY":
        raise InvalidInput(f"MLflow says that {what} is {version.status}", remedy="register it again there")
    query = {"name": version.name, "version": version.version}
    uri = server.get(Download, "mlflow/model-versions/get-download-uri", what, **query).artifact_uri
    logged = (
        _logged(server, version.source.removeprefix("models:/")) if version.source.startswith("models:/m-") else None
    )
    run = _run(server, version.run_id) if version.run_id else None
    known = Known(version, model, run, logged)
    with _fetched(server, uri, known, version.name, _pin(version)) as fetched:
        _refuse_none(fetched, what, uri)
        yield replace(fetched, version=f"{version.number}.0.0" if version.number else None)


def _version(server: Server, address: Address) -> tuple[ModelVersion, RegisteredModel]:
    name = address.model or ""
    what = f"model {name}"
    model = server.get(OneModel, "mlflow/registered-models/get", what, name=name).registered_model
    if pairs(model.tags).get("mlflow.prompt.is_prompt") == "true":
        raise InvalidInput(f"{name} is a prompt, not a model", remedy="choose a model")
    if address.alias:
        query = {"name": name, "alias": address.alias}
        what = f"alias {address.alias} of model {name}"
        return server.get(OneVersion, "mlflow/registered-models/alias", what, **query).model_version, model
    wanted = address.version
    if wanted is None:
        newest = max(model.latest_versions, key=lambda version: version.number, default=None)
        if newest is None:
            raise NotFound(f"the model {name} has no version at {server.name}", remedy="choose another model")
        wanted = newest.version
    what = f"version {wanted} of model {name}"
    return server.get(OneVersion, "mlflow/model-versions/get", what, name=name, version=wanted).model_version, model


@contextmanager
def _of_logged(server: Server, logged: Logged) -> Iterator[Fetched]:
    run = _run(server, logged.info.source_run_id) if logged.info.source_run_id else None
    name = logged.info.name or logged.info.model_id
    pin = f"mlflow://models/{logged.info.model_id}"
    with _fetched(server, logged.info.artifact_uri, Known(run=run, logged=logged), name, pin) as fetched:
        _refuse_none(fetched, f"logged model {logged.info.model_id}", logged.info.artifact_uri)
        yield fetched


@contextmanager
def _of_run(server: Server, run_id: str, path: str) -> Iterator[Fetched]:
    """Artifacts of the run; where there are none, the model of that name that the run logged (MLflow 3)."""
    run = _run(server, run_id)
    uri = "/".join(part for part in (run.info.artifact_uri.rstrip("/"), quote(path)) if part)
    name = path.rpartition("/")[2] or run.info.run_name or run_id
    pin = "/".join(part for part in (f"mlflow://runs/{run_id}", quote(path)) if part)
    with _fetched(server, uri, Known(run=run), name, pin) as fetched:
        if fetched.files:
            yield fetched
            return
    models = [_logged(server, output.model_id) for output in run.outputs.model_outputs]
    named = [model for model in models if path in ("", model.info.name)]
    if len(named) != 1:
        there = ", ".join(model.info.name for model in models) or "none"
        raise NotFound(
            f"the run {run_id} has no artifacts at {path!r} and {len(named)} such models",
            remedy=f"name one of its models: {there}",
        )
    with _of_logged(server, named[0]) as fetched:
        yield fetched


@contextmanager
def _fetched(server: Server, uri: str, known: Known, name: str, pin: str) -> Iterator[Fetched]:
    with artifacts(server, uri) as files:
        if known.run and known.run.info.experiment_id:
            known = replace(known, experiment=_experiment(server, known.run.info.experiment_id).experiment)
        said = {"kind": "mlflow", "server": server.name}
        found = {"source": said} | metadata(known, _mlmodel(files))
        yield Fetched(files, name, metadata=found, lineage={"source": pin})


def _refuse_none(fetched: Fetched, what: str, uri: str) -> None:
    if not fetched.files:
        raise NotFound(
            f"the files of {what} are not at {without_user(uri)}",
            remedy="if they lie on the machine of the server, import there, or let it proxy its artifacts",
        )


def _mlmodel(files: Sequence[File]) -> dict[str, object]:
    file = next((file for file in files if file.path == "MLmodel"), None)
    if file is None:
        return {}
    if file.size > _MOST_MLMODEL:
        raise InvalidInput(f"MLmodel has {file.size} bytes, far too many", remedy="log the model again")
    with file.open() as stream:
        return read_mlmodel(stream.read())


def _run(server: Server, run_id: str) -> Run:
    return server.get(OneRun, "mlflow/runs/get", f"run {run_id}", run_id=run_id).run


def _logged(server: Server, model_id: str) -> Logged:
    return server.get(OneLogged, f"mlflow/logged-models/{quote(model_id)}", f"logged model {model_id}").model


def _experiment(server: Server, experiment_id: str) -> OneExperiment:
    what = f"experiment {experiment_id}"
    return server.get(OneExperiment, "mlflow/experiments/get", what, experiment_id=experiment_id)
