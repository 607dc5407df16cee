"""How a model in MLflow is written:

    mlflow://host:port/models/NAME[/VERSION | @ALIAS]     a registered model; without a version: its newest
    mlflow://host:port/models/m-ID                        a logged model (MLflow 3)
    mlflow://host:port/runs/RUN_ID[/PATH]                 a model, or any artifacts, of a run
    mlflow://host:port                                    all registered models, for `import --all`

`mlflow+https://` speaks TLS. What stands before /models or /runs belongs to the server's address. Without a host, as
in mlflow://models/NAME, the server is that of MLFLOW_TRACKING_URI. Special characters are %-encoded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from modelyard.errors import InvalidInput

SCHEMES = {"mlflow": "http", "mlflow+https": "https"}
_LOGGED = re.compile(r"m-[0-9a-f]{32}")
_RUN = re.compile(r"[A-Za-z0-9][\w-]{0,255}")
_WRITE = "write mlflow://host:port/models/NAME/VERSION or mlflow://host:port/runs/RUN_ID/PATH"


@dataclass(frozen=True, slots=True)
class Address:
    """What an address says. `server` is http(s)://…, or empty for that of the environment."""

    server: str = ""
    model: str | None = None
    version: str | None = None
    alias: str | None = None
    logged: str | None = None
    run: str | None = None
    path: str = ""

    @property
    def base(self) -> str:
        """The address of the server alone, as `parse` takes it."""
        scheme = {http: ours for ours, http in SCHEMES.items()}
        http, colon, rest = self.server.partition("://")
        return f"{scheme[http]}://{rest}" if colon else "mlflow:/"

    def of(self, model: str, version: str) -> str:
        """The address of a model version at the same server."""
        return f"{self.base}/models/{quote(model, safe='')}/{quote(version, safe='')}"


def parse(text: str) -> Address:
    """Raises InvalidInput."""
    url = urlsplit(text)
    if "@" in url.netloc:
        raise InvalidInput(
            f"{url.scheme}://…@{url.netloc.rpartition('@')[2]} holds a user",
            remedy="leave it out and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
        )
    if url.query or url.fragment:
        raise InvalidInput(f"{text} has a '?' or a '#'", remedy="write those characters of a name as %3F and %23")
    parts = [part for part in url.path.split("/") if part]
    host = url.netloc
    if host in ("models", "runs"):  # a host of such a name is written with its port
        host, parts = "", [host, *parts]
    kinds = [index for index, part in enumerate(parts) if part in ("models", "runs")]
    start = kinds[0] if kinds else len(parts)
    server = "/".join([f"{SCHEMES[url.scheme]}://{host}", *parts[:start]]) if host else ""
    if not host and start:
        raise InvalidInput(f"{text} names no MLflow server", remedy=_WRITE)
    rest = [unquote(part) for part in parts[start + 1 :]]
    if not rest:
        return Address(server)
    if parts[start] == "runs":
        if not _RUN.fullmatch(rest[0]) or ".." in rest:
            raise InvalidInput(f"{text} names no run", remedy=_WRITE)
        return Address(server, run=rest[0], path="/".join(rest[1:]))
    return _model(text, server, rest)


def _model(text: str, server: str, parts: list[str]) -> Address:
    name, at, alias = parts[0].partition("@")
    if len(parts) > 2 or not name or (at and (len(parts) == 2 or not alias)):
        raise InvalidInput(f"{text} names no model", remedy=_WRITE)
    if len(parts) == 2:
        return Address(server, model=name, version=parts[1])
    if _LOGGED.fullmatch(name):
        return Address(server, logged=name)
    return Address(server, model=name, alias=alias or None)
