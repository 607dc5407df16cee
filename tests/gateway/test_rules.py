"""What rules do to requests: copies, fallbacks, deadlines, bounds, the same version for the same key."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from modelyard.gateway import Backend, Endpoint, Gateway, Mirror, Route, RouteTable
from modelyard.settings import GatewaySettings
from ports import free_port

from .upstreams import Client, Upstream, backend, closing_server, wait_for

Start = Callable[[str], Upstream]


def to(one: Backend, *names: str, **options: object) -> Route:
    return Route(names or (one.model,), ((one.id, 1),), **options)  # type: ignore[arg-type]


def nowhere(model: str) -> Backend:
    """A replica that is not there, though nobody has noticed."""
    return backend(model, Endpoint("127.0.0.1", free_port()))


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v2/models/ns/digit/infer?trace=1"])
@pytest.mark.parametrize("replicas", [0, 1, 2])
def test_another_model_answers_when_the_first_can_not(
    gateway: Gateway, client: Client, upstream: Start, path: str, replicas: int
) -> None:
    ends = [Endpoint("127.0.0.1", free_port()) for _ in range(replicas)]
    first, spare = backend("ns/digit", *ends), backend("spare", upstream("spare").endpoint())
    gateway.apply(RouteTable((first, spare), (to(first, fallback=("spare",)), to(spare))))
    for _ in range(5):
        answer = client.ask("POST", path, {"model": "ns/digit", "more": 1})
        assert (answer.status, answer.json()["server"]) == (200, "spare")
        assert answer.headers["x-modelyard-model"] == spare.label
        assert answer.json()["path"] == path.replace("ns/digit", "spare").partition("?")[0]


def test_while_the_first_can_answer_nobody_else_is_asked(gateway: Gateway, client: Client, upstream: Start) -> None:
    one, two = upstream("one"), upstream("two")
    first, spare = (
        backend("digit", one.endpoint(), Endpoint("127.0.0.1", free_port())),
        backend("spare", two.endpoint()),
    )
    gateway.apply(RouteTable((first, spare), (to(first, fallback=("spare",)), to(spare))))
    answers = [client.post("digit") for _ in range(20)]
    assert [answer.status for answer in answers] == [200] * 20
    assert {answer.headers["x-modelyard-model"] for answer in answers} == {first.label}
    assert not two.seen


def test_fallbacks_are_taken_in_order(gateway: Gateway, client: Client, upstream: Start) -> None:
    first, second, third = nowhere("first"), nowhere("second"), backend("third", upstream("third").endpoint())
    routes = (to(first, fallback=("second", "third")), to(second, fallback=("first",)), to(third))
    gateway.apply(RouteTable((first, second, third), routes))
    assert client.post("first").headers["x-modelyard-model"] == third.label
    assert client.ask("POST", "/v2/models/first/infer", {}).json()["path"] == "/v2/models/third/infer"
    gateway.apply(RouteTable((first, second), (*routes[1:2], to(first))))
    answer = client.post("second")
    assert (answer.status, answer.error()["code"]) == (503, "replica_failed")


def test_a_fallback_has_its_engines_name_and_its_own_pool(gateway: Gateway, client: Client, upstream: Start) -> None:
    first = replace(nowhere("first"), pool="a", internal_name="inside-1")
    spare = replace(backend("spare", upstream("spare").endpoint()), pool="b", internal_name="inside-2")
    gateway.apply(RouteTable((first, spare), (to(first, fallback=("spare",)), to(spare))))
    got = client.post("first").json()
    assert (got["model"], got["headers"]["x-modelyard-served"]) == ("inside-2", spare.label)
    assert client.ask("POST", "/v2/models/first/infer", {}).json()["path"] == "/v2/models/inside-2/infer"


def test_a_request_that_has_begun_does_not_fall_back(gateway: Gateway, client: Client, upstream: Start) -> None:
    spare = backend("spare", upstream("spare").endpoint())
    with closing_server() as (port, taken):
        first = backend("first", Endpoint("127.0.0.1", port))
        gateway.apply(RouteTable((first, spare), (to(first, fallback=("spare",)), to(spare))))
        assert client.post("first").status == 503
        assert len(taken) == 1


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v2/models/digit/infer"])
def test_copies_go_to_the_mirror_and_their_answers_nowhere(
    gateway: Gateway, client: Client, upstream: Start, path: str
) -> None:
    one, two = upstream("one"), upstream("two")
    digit, shadow = backend("digit", one.endpoint()), replace(backend("shadow", two.endpoint()), internal_name="inside")
    routes = (to(digit, mirror=Mirror("shadow")), to(shadow, mirror=Mirror("digit")))
    gateway.apply(RouteTable((digit, shadow), routes))
    for _ in range(10):
        answer = client.ask("POST", path, {"model": "digit"})
        assert (answer.json()["server"], answer.headers["x-modelyard-model"]) == ("one", digit.label)
    wait_for(lambda: len(two.seen) == 10)
    assert len(one.seen) == 10  # a mirror's own mirror gets none
    assert {got["path"] for got in two.seen} == {path.replace("digit", "inside")}
    assert {got["model"] for got in two.seen} == {"inside" if path.startswith("/v1") else "digit"}


def test_a_share_of_the_requests_is_mirrored(gateway: Gateway, client: Client, upstream: Start) -> None:
    one, two = upstream("one"), upstream("two")
    digit, shadow = backend("digit", one.endpoint()), backend("shadow", two.endpoint())
    gateway.apply(RouteTable((digit, shadow), (to(digit, mirror=Mirror("shadow", 30)), to(shadow))))
    for _ in range(200):
        client.post("digit")
    gateway.apply(RouteTable((digit,), (to(digit),)))
    wait_for(lambda: not any(gateway.in_flight().values()))
    assert 25 < len(two.seen) < 95  # 60 expected; 5 standard deviations


def test_a_mirror_that_hangs_or_is_gone_costs_nothing(gateway: Gateway, client: Client, upstream: Start) -> None:
    digit, shadow = backend("digit", upstream("one").endpoint()), nowhere("shadow")
    gateway.apply(RouteTable((digit, shadow), (to(digit, mirror=Mirror("shadow")), to(shadow))))
    assert [client.post("digit").status for _ in range(5)] == [200] * 5


@pytest.mark.parametrize("key", [{"header": "x-modelyard-key"}, {"body": "user"}])
def test_the_same_key_gets_the_same_version(
    gateway: Gateway, settings: GatewaySettings, upstream: Start, key: dict[str, str]
) -> None:
    one = backend("digit", upstream("one").endpoint())
    two = backend("digit", upstream("two").endpoint(), version="v1.1.0")
    gateway.apply(RouteTable((one, two), (Route(("digit",), ((one.id, 1), (two.id, 1))),)))

    def asked(user: str) -> str:
        with Client(settings.port) as client:
            body = {"model": "digit"} | ({"user": user} if "body" in key else {})
            headers = {"x-modelyard-key": user} if "header" in key else {}
            return client.ask("POST", "/v1/embeddings", body, headers=headers).headers["x-modelyard-model"]

    first = {user: asked(user) for user in (f"user {n} ü\r\n" if "body" in key else f"user-{n}" for n in range(40))}
    assert set(first.values()) == {one.label, two.label}
    for user, label in first.items():
        assert asked(user) == asked(user) == label


def test_the_key_in_the_header_comes_before_the_user(gateway: Gateway, client: Client, upstream: Start) -> None:
    one = backend("digit", upstream("one").endpoint())
    two = backend("digit", upstream("two").endpoint(), version="v1.1.0")
    gateway.apply(RouteTable((one, two), (Route(("digit",), ((one.id, 1), (two.id, 1))),)))
    for path in ("/v1/embeddings", "/v2/models/digit/infer"):
        bodies = [{"model": "digit", "user": str(n)} for n in range(20)]
        answers = [client.ask("POST", path, body, headers={"x-modelyard-key": "k"}) for body in bodies]
        assert len({answer.headers["x-modelyard-model"] for answer in answers}) == 1


@pytest.mark.parametrize("user", [None, 7, True, {"id": 1}, "", "x" * 20_000, ["a"]])
def test_any_user_is_taken(gateway: Gateway, client: Client, upstream: Start, user: object) -> None:
    one = backend("digit", upstream("one").endpoint())
    two = backend("digit", upstream("two").endpoint(), version="v1.1.0")
    gateway.apply(RouteTable((one, two), (Route(("digit",), ((one.id, 1), (two.id, 1))),)))
    assert client.post("digit", user=user).status == 200


def test_what_is_late_is_a_504(gateway: Gateway, client: Client, upstream: Start) -> None:
    server = upstream("one")
    digit = backend("digit", server.endpoint())
    gateway.apply(RouteTable((digit,), (to(digit, timeout_s=0.2),)))
    assert client.post("digit").status == 200
    answer = client.post("digit", hold=True)
    assert (answer.status, answer.error()["code"]) == (504, "timeout")
    assert server.cancelled.wait(10)
    answer = client.ask("POST", "/v2/models/digit/infer", {"hold": True})
    assert (answer.status, set(answer.json())) == (504, {"error"})


def test_requests_over_the_bound_are_refused(gateway: Gateway, settings: GatewaySettings, upstream: Start) -> None:
    server = upstream("one")
    digit = replace(backend("digit", server.endpoint()), max_requests=2)
    gateway.apply(RouteTable((digit,), (to(digit),)))
    statuses: list[int] = []

    def ask() -> None:
        with Client(settings.port) as client:
            statuses.append(client.post("digit", hold=True).status)

    asking = [threading.Thread(target=ask) for _ in range(2)]
    for thread in asking:
        thread.start()
    wait_for(lambda: len(server.seen) == 2)
    with Client(settings.port) as client:
        answer = client.post("digit")
    assert (answer.status, answer.error()["code"], answer.headers["retry-after"]) == (503, "overloaded", "1")
    server.release.set()
    for thread in asking:
        thread.join(20)
    assert statuses == [200, 200]


def test_a_bound_that_changes_fails_no_request(gateway: Gateway, client: Client, upstream: Start) -> None:
    digit = backend("digit", upstream("one").endpoint())
    for bound in (None, 5, 7, None):
        gateway.apply(RouteTable((replace(digit, max_requests=bound),), (to(digit),)))
        assert [client.post("digit").status for _ in range(5)] == [200] * 5


def test_a_replica_that_fails_again_and_again_is_left_out(gateway: Gateway, client: Client, upstream: Start) -> None:
    sick, well = upstream("sick"), upstream("well")
    digit = backend("digit", sick.endpoint(), well.endpoint())
    gateway.apply(RouteTable((digit,), (to(digit),)))
    sick.status = 502

    def left_out() -> bool:
        return {client.post("digit").status for _ in range(20)} == {200}

    wait_for(left_out)
    assert well.seen
    alone = backend("alone", sick.endpoint())
    gateway.apply(RouteTable((alone,), (to(alone),)))
    assert {client.post("alone").status for _ in range(20)} == {502}  # the only one is never left out
