"""Engines that are run elsewhere, and engines that insist on a name of their own."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from modelyard.errors import InvalidInput
from modelyard.gateway import Backend, Gateway, Remote, Route, RouteTable
from ports import free_port

from .upstreams import Client, Upstream, backend, wait_for

Start = Callable[[str], Upstream]


def elsewhere(url: str, internal_name: str = "inside/name:1b") -> Backend:
    return Backend("external", "big", "big@external", remote=Remote.parse(url), internal_name=internal_name)


def table(one: Backend) -> RouteTable:
    return RouteTable((one,), (Route((one.model,), ((one.id, 1),)),))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_an_engine_elsewhere_answers_under_its_name(
    gateway: Gateway, client: Client, upstream: Start, host: str
) -> None:
    server = upstream("one")
    gateway.apply(table(elsewhere(f"http://{host}:{server.port}")))
    wait_for(lambda: client.post("big").status == 200)  # its name may have to be looked up first
    answer = client.post("big", text="ü", numbers=[1, 0.1, 2**53, -1e300])
    got = answer.json()
    assert (got["model"], got["headers"]["host"]) == ("inside/name:1b", f"{host}:{server.port}")
    assert got["asked"] == {"model": "inside/name:1b", "text": "ü", "numbers": [1, 0.1, 2**53, -1e300]}
    assert answer.headers["x-modelyard-model"] == "big@external"
    answer = client.ask("POST", "/v2/models/big/infer", {"inputs": []})
    assert (answer.status, answer.json()["path"]) == (200, "/v2/models/inside/name:1b/infer")
    assert answer.json()["asked"] == {"inputs": []}
    assert [model["id"] for model in client.ask("GET", "/v1/models").json()["data"]] == ["big"]


def test_an_engine_elsewhere_may_move_and_go(gateway: Gateway, client: Client, upstream: Start) -> None:
    one, two = upstream("one"), upstream("two")
    for server in (one, two, one):
        gateway.apply(table(elsewhere(f"http://127.0.0.1:{server.port}")))
        assert client.post("big").json()["server"] == server.name
    gateway.apply(RouteTable())
    assert client.post("big").status == 404
    assert gateway.in_flight() == {}


def test_an_engine_elsewhere_that_is_gone_is_a_503(gateway: Gateway, client: Client) -> None:
    for url in (f"http://127.0.0.1:{free_port()}", "http://no-such-host.invalid:80"):
        gateway.apply(table(elsewhere(url)))
        answer = client.post("big")
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert answer.error()["code"] in ("replica_failed", "no_ready_replica")


def test_an_engine_elsewhere_falls_back(gateway: Gateway, client: Client, upstream: Start) -> None:
    big, small = elsewhere(f"http://127.0.0.1:{free_port()}"), backend("small", upstream("one").endpoint())
    routes = (Route(("big",), ((big.id, 1),), fallback=("small",)), Route(("small",), ((small.id, 1),)))
    gateway.apply(RouteTable((big, small), routes))
    answer = client.post("big")
    assert (answer.status, answer.headers["x-modelyard-model"]) == (200, small.label)
    big = elsewhere("http://no-such-host.invalid:80")
    gateway.apply(RouteTable((big, small), (Route(("big",), ((big.id, 1),), fallback=("small",)), routes[1])))
    answer = client.ask("POST", "/v2/models/big/infer", {})
    assert (answer.status, answer.json()["path"]) == (200, "/v2/models/small/infer")


def test_streams_pass_an_engine_with_a_name_of_its_own(gateway: Gateway, client: Client, upstream: Start) -> None:
    one = replace(backend("digit", upstream("one").endpoint()), internal_name="inside")
    gateway.apply(table(one))
    answer = client.post("digit", stream=3)
    assert answer.body == b'data: {"a": 1}\n\n' * 3 + b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("Application/JSON", 415),
        ("application/x+json", 415),
    ],
)
def test_only_what_can_be_rewritten_reaches_an_engine_with_a_name_of_its_own(
    gateway: Gateway, client: Client, upstream: Start, content_type: str, status: int
) -> None:
    server = upstream("one")
    gateway.apply(table(replace(backend("digit", server.endpoint()), internal_name="in 100%s")))
    answer = client.ask("POST", "/v1/embeddings", {"model": "digit", "input": "a"}, content_type)
    assert answer.status == status
    assert [got["model"] for got in server.seen] == ["in 100%s"] * (status == 200)


def test_each_version_of_a_split_gets_its_own_name(gateway: Gateway, client: Client, upstream: Start) -> None:
    one = replace(backend("digit", upstream("one").endpoint()), internal_name="first")
    two = replace(backend("digit", upstream("two").endpoint(), version="v1.1.0"), internal_name="second")
    gateway.apply(RouteTable((one, two), (Route(("digit",), ((one.id, 1), (two.id, 1))),)))
    answers = [client.post("digit", user=str(n)) for n in range(40)]
    got = {(answer.json()["model"], answer.json()["server"]) for answer in answers}
    assert got == {("first", "one"), ("second", "two")}


def test_a_task_is_shared_by_models_and_asked_for_in_the_body(
    gateway: Gateway, client: Client, upstream: Start
) -> None:
    one, two = backend("small", upstream("one").endpoint()), backend("large", upstream("two").endpoint())
    route = Route(("task:search",), ((one.id, 1), (two.id, 1)), task=True)
    gateway.apply(RouteTable((one, two), (route,)))
    answers = [client.post("task:search", "/v1/embeddings") for _ in range(40)]
    assert {answer.headers["x-modelyard-model"] for answer in answers} == {one.label, two.label}
    assert client.ask("POST", "/v2/models/task:search/infer", {}).status == 404
    with pytest.raises(InvalidInput, match="mixes"):
        RouteTable((one, two), (replace(route, task=False),))


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
@pytest.mark.parametrize("trusted", [True, False])
def test_an_engine_elsewhere_by_https(
    gateway: Gateway, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, trusted: bool
) -> None:
    own, other = certificate(tmp_path / "own.pem"), certificate(tmp_path / "other.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(own if trusted else other))
    with Upstream("secure", certificate=own) as server:
        gateway.apply(table(elsewhere(f"https://{host}:{server.port}")))
        if trusted:
            wait_for(lambda: client.post("big").status == 200)
            assert client.post("big").json()["headers"]["host"] == f"{host}:{server.port}"
        else:
            assert client.post("big").error()["code"] in ("replica_failed", "no_ready_replica")
            assert not server.seen


def test_without_any_certificates_nothing_is_trusted(monkeypatch: pytest.MonkeyPatch, gateway: Gateway) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")
    assert ssl.get_default_verify_paths().cafile is None
    with pytest.raises(Exception, match="SSL_CERT_FILE"):
        gateway.apply(table(elsewhere("https://localhost:1")))


def certificate(path: Path) -> Path:
    """A file with a key and a certificate of this machine that vouches for itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, path.stem)])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path
