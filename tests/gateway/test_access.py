"""Who may ask what, decided by a real Envoy: every refusal in both protocols' shapes, and changes while it runs."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import openai
import pytest

from access.support import Office
from modelyard.access import Rules
from modelyard.configuration.sections import RateLimit
from modelyard.gateway import Gateway, Route, RouteTable
from modelyard.settings import GatewaySettings

from .upstreams import Answer, Client, Upstream, backend, wait_for

Start = Callable[[str], Upstream]
SERVED = ("digits", "team/faces", "task:semantic-search")


class Guarded:
    """A gateway with access on, three models behind it, and an office that makes tokens."""

    def __init__(self, gateway: Gateway, settings: GatewaySettings, office: Office, server: Upstream) -> None:
        self.gateway, self.settings, self.office, self.server = gateway, settings, office, server
        backends = tuple(backend(name, server.endpoint()) for name in SERVED)
        routes = tuple(Route(_names(b.model), ((b.id, 1),)) for b in backends)
        self.table = RouteTable(backends, routes)
        self.apply()

    def apply(self, rules: Rules | None = None, **limits: RateLimit) -> None:
        self.gateway.apply(replace(self.table, access=rules or self.office.rules, limits=limits))

    def ask(
        self, token: str | None, path: str = "/v1/chat/completions", model: str = "digits", **more: object
    ) -> Answer:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        with Client(self.settings.port) as client:
            return client.ask("POST", path, {"model": model, **more}, headers=headers)

    def get(self, token: str | None, path: str) -> Answer:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        with Client(self.settings.port) as client:
            return client.ask("GET", path, headers=headers)


def _names(model: str) -> tuple[str, ...]:
    return (model,) if model.startswith("task:") else (model, f"{model}:production")


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


@pytest.fixture
def guarded(gateway: Gateway, settings: GatewaySettings, office: Office, upstream: Start) -> Iterator[Guarded]:
    yield Guarded(gateway, settings, office, upstream("server"))


def refused(answer: Answer, status: int, code: str, *, oip: bool) -> None:
    """In the protocol's own shape; a 401 says how to authenticate (RFC 9110, 11.6.1)."""
    assert answer.status == status, answer.body
    if oip:
        assert isinstance(answer.json()["error"], str)
    else:
        assert answer.error()["code"] == code
    assert ("www-authenticate" in answer.headers) == (status == 401)


@pytest.mark.parametrize("oip", [False, True], ids=["openai", "oip"])
def test_every_refusal(guarded: Guarded, office: Office, tmp_path: Path, oip: bool) -> None:
    path = "/v2/models/digits/infer" if oip else "/v1/chat/completions"
    good, revoked = office.token(models=("digits",)), office.made()
    office.journal.revoke(revoked[1])
    guarded.apply()
    forged, expired = Office(tmp_path).token(), office.token(age_s=7200)
    assert guarded.ask(good, path).status == 200

    for bad in (None, "nonsense", "a.b.c", f"{good[:-8]}AAAAAAAA", good.replace(".", "x"), forged):
        refused(guarded.ask(bad, path), 401, "unauthorized", oip=oip)
    refused(guarded.ask(expired, path), 401, "token_expired", oip=oip)
    refused(guarded.ask(revoked[0], path), 401, "token_revoked", oip=oip)
    refused(guarded.ask(office.token("viewer"), path), 403, "forbidden", oip=oip)
    refused(guarded.ask(office.token("admin", ("other", "team/*")), path), 403, "forbidden", oip=oip)
    assert len(guarded.server.seen) == 1  # nothing of this has reached the model


def test_what_tokens_are_good_for(guarded: Guarded, office: Office) -> None:
    team, task = office.token(models=("team/*",)), office.token(models=("task:semantic-search",))
    assert guarded.ask(team, model="team/faces:production").status == 200
    assert guarded.ask(team, "/v2/models/team%2Ffaces%3Aproduction/infer").status == 200
    assert guarded.ask(team, model="digits").status == 403
    assert guarded.ask(task, "/v1/embeddings", "task:semantic-search").status == 200
    assert guarded.ask(task, "/v1/embeddings", "team/faces").status == 403
    for role in ("caller", "deployer", "admin"):
        assert guarded.ask(office.token(role)).status == 200


def test_viewers_look_and_do_not_ask(guarded: Guarded, office: Office) -> None:
    viewer = office.token("viewer", ("digits",))
    names = [each["id"] for each in guarded.get(viewer, "/v1/models").json()["data"]]
    assert set(SERVED) <= set(names)  # names are no secret to those who have a token
    assert guarded.get(viewer, "/v2/models/digits").status == 200
    assert guarded.get(viewer, "/v2/models/team/faces").status == 403
    for path in ("/v1/models", "/v2", "/v2/models/digits", "/nowhere"):
        assert guarded.get(None, path).status == 401
    assert guarded.ask(viewer, model="unknown").status == 404


def test_health_is_open(guarded: Guarded, office: Office) -> None:
    guarded.apply(Rules(required=True))
    for path in ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"):
        assert guarded.get(None, path).status == 200
    refused(guarded.ask(office.token()), 401, "token_revoked", oip=False)


def test_models_do_not_see_the_token_and_clients_do_not_say_who_they_are(guarded: Guarded, office: Office) -> None:
    lies = {"x-modelyard-subject": "admin", "authorization": f"Bearer {office.token()}"}
    with Client(guarded.settings.port) as client:
        client.ask("POST", "/v1/chat/completions", {"model": "digits"}, headers=lies)
        guarded.apply(Rules())
        client.ask("POST", "/v1/chat/completions", {"model": "digits"}, headers=lies)
    told, unknown = (got["headers"] for got in guarded.server.seen)
    assert told["x-modelyard-subject"] == "someone"
    assert "x-modelyard-subject" not in unknown
    assert "authorization" not in told.keys() | unknown.keys()


def test_access_comes_and_goes_while_it_runs(guarded: Guarded, office: Office) -> None:
    old, other = office.made(), office.made()
    for rules, status in ((Rules(), 200), (office.rules, 401), (Rules(), 200)):
        guarded.apply(rules)
        assert guarded.ask(None).status == status

    office.journal.rotate()
    guarded.apply()
    new = office.token()
    assert [guarded.ask(token).status for token in (old[0], other[0], new)] == [200, 200, 200]
    office.journal.revoke(old[1], reason="lost")
    guarded.apply()
    assert [guarded.ask(token).status for token in (old[0], other[0], new)] == [401, 200, 200]
    office.journal.revoke(office.journal.read().tokens[old[1]].key)
    guarded.apply()
    assert [guarded.ask(token).status for token in (other[0], new)] == [401, 200]


def test_changes_cut_no_stream(guarded: Guarded, office: Office) -> None:
    """A stream goes on over a rotation, the revocation of another token, and other limits."""
    mine, other = office.token(), office.made()
    answers: list[Answer] = []
    reader = threading.Thread(target=lambda: answers.append(guarded.ask(mine, stream=5, pause=True)))
    reader.start()
    wait_for(lambda: guarded.server.seen)
    office.journal.rotate()
    guarded.apply()
    office.journal.revoke(other[1])
    guarded.apply()
    guarded.apply(digits=RateLimit(requests_per_minute=5))
    guarded.apply(Rules())
    guarded.server.release.set()
    reader.join(30)
    assert answers[0].status == 200
    assert answers[0].body == b'data: {"a": 1}\n\n' * 5 + b"data: [DONE]\n\n"


def test_the_openai_client_takes_a_token_as_its_key(guarded: Guarded, office: Office) -> None:
    url = f"http://127.0.0.1:{guarded.settings.port}/v1"
    with openai.OpenAI(base_url=url, api_key=office.token(models=("digits",)), max_retries=0) as client:
        assert {model.id for model in client.models.list()} >= set(SERVED)
        client.embeddings.with_raw_response.create(model="digits", input="hello")
        with pytest.raises(openai.PermissionDeniedError, match="the token is good, but not for this"):
            client.embeddings.create(model="team/faces", input="hello")
    with (
        openai.OpenAI(base_url=url, api_key="guessed", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError, match="a valid token is needed"),
    ):
        client.models.list()


def test_no_secret_is_written(tmp_path: Path, settings: GatewaySettings, office: Office, upstream: Start) -> None:
    """The access log says who asked; neither a token nor a private key lies in any of the gateway's files."""
    log = tmp_path / "access.log"
    logging = settings.model_copy(update={"access_log": log})
    gateway = Gateway(tmp_path / "gateway", logging)
    gateway.start()
    try:
        guarded = Guarded(gateway, logging, office, upstream("server"))
        token, pem = office.token(), office.keys.file.read_text()
        assert [guarded.ask(each).status for each in (token, f"{token[:-4]}AAAA")] == [200, 401]
    finally:
        gateway.stop(drain_s=0)
    assert [json.loads(line).get("subject") for line in log.read_text().splitlines()] == ["someone", None]
    files = [log, *(path for path in (tmp_path / "gateway").rglob("*") if path.is_file())]
    for secret in (token.split(".")[2][:20], pem.splitlines()[1]):
        assert not [path for path in files if secret in path.read_text(errors="replace")]
