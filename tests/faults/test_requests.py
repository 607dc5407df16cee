"""Single requests to an S3 server that is slow, busy, or loses answers: tried again, or failed with one clear line."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from modelyard.errors import NotFound, StoreError
from modelyard.store import S3, Store

from .proxy import FAULTS, Fault, FaultyProxy, once

BIG = os.urandom(30_000_000)


@pytest.fixture
def store(proxy: FaultyProxy) -> Store:
    """A store that holds `a/small` and `a/big`."""
    opened = S3("yard", uuid.uuid4().hex, endpoint_url=proxy.url)
    opened.put("a/small", b"0123456789")
    opened.put("a/big", BIG)
    return opened


def missing(store: Store) -> bool:
    with pytest.raises(NotFound):
        store.get("a/missing")
    return True


def put(store: Store, key: str) -> bool:
    store.put(key, b"1")
    return store.get(key) == b"1"


def copy(store: Store, key: str) -> bool:
    store.copy("a/small", key)
    return store.get(key) == b"0123456789"


def delete(store: Store, key: str) -> bool:
    store.put(key, b"1")
    store.delete([key])
    return list(store.objects("b")) == []


CALLS: dict[str, tuple[str, Callable[[Store, str], bool]]] = {
    "get": ("GET", lambda store, key: store.get("a/small") == b"0123456789"),
    "range": ("GET", lambda store, key: store.get_range("a/small", 1, 3) == b"123"),
    "stream": ("GET", lambda store, key: b"".join(store.stream("a/big")) == BIG),
    "missing": ("GET", lambda store, key: missing(store)),
    "list": ("GET", lambda store, key: [found.key for found in store.objects("a")] == ["a/big", "a/small"]),
    "folders": ("GET", lambda store, key: store.list_directories("a") == []),
    "put": ("PUT", put),
    "copy": ("PUT", copy),
    "delete": ("POST", delete),
}


@pytest.mark.parametrize(("method", "call"), CALLS.values(), ids=CALLS)
def test_a_failure_that_passes_is_not_noticed(
    proxy: FaultyProxy, store: Store, method: str, call: Callable[[Store, str], bool]
) -> None:
    for fault in FAULTS:
        proxy.decide = once(fault, method)
        assert call(store, f"b/{fault}"), fault
        assert fault in [done for _, done in proxy.requests]


def test_a_creation_is_tried_again_and_made_once(proxy: FaultyProxy, store: Store) -> None:
    """False may mean that our own write came first: who creates looks at what is there."""
    for fault in FAULTS:
        proxy.decide = once(fault, "PUT")
        created = store.create(f"b/{fault}", fault.encode())
        assert created or fault in ("cut off", "lost", "lost 503")
        assert store.get(f"b/{fault}") == fault.encode()
        assert not store.create(f"b/{fault}", b"other")


def test_a_long_listing_goes_on_where_it_broke(proxy: FaultyProxy, store: Store) -> None:
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: store.put(f"many/{number:04}", b""), range(1100)))
    proxy.decide = once("cut off", "GET", "continuation-token")
    assert [found.key for found in store.objects("many")] == [f"many/{number:04}" for number in range(1100)]
    assert proxy.requests[-1][0].target.count("start-after") == 1


def test_a_stream_goes_on_where_it_broke(proxy: FaultyProxy, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where obstore has spent its own attempts, as it has after a while of a long download."""
    impatient = _impatient(store, proxy, monkeypatch)
    left: list[Fault] = ["cut off", "lost", "cut off"]
    proxy.decide = lambda request: left.pop() if left and request.method == "GET" else None
    proxy.requests.clear()
    assert b"".join(impatient.stream("a/big")) == BIG
    assert [fault for _, fault in proxy.requests] == ["cut off", "lost", "cut off", None]


def test_a_stretch_goes_on_where_it_broke(proxy: FaultyProxy, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    impatient = _impatient(store, proxy, monkeypatch)
    left: list[Fault] = ["cut off", "lost", "cut off"]
    proxy.decide = lambda request: left.pop() if left and request.method == "GET" else None
    pieces = impatient.read("a/big", 1000, 20_000_000, size=len(BIG))
    assert b"".join(bytes(piece) for piece in pieces) == BIG[1000:20_001_000]
    assert left == []


def test_a_stream_does_not_mix_two_objects(proxy: FaultyProxy, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    impatient = _impatient(store, proxy, monkeypatch)
    proxy.decide = once("cut off", "GET")
    chunks = impatient.stream("a/big")
    next(chunks)
    store.put("a/big", BIG[::-1])
    with pytest.raises(StoreError, match="failed at a/big") as failed:
        list(chunks)
    assert "\n" not in str(failed.value)


def test_a_stream_that_always_breaks_ends(proxy: FaultyProxy, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    impatient = _impatient(store, proxy, monkeypatch)
    proxy.decide = lambda request: "lost"
    with pytest.raises(StoreError, match=r"no answer from http://127\.0\.0\.1:\d+ .*; check its address"):
        list(impatient.stream("a/big"))


def test_a_server_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch, s3: object) -> None:
    monkeypatch.setenv("MODELYARD_STORAGE__RETRIES", "2")
    store = S3("yard", endpoint_url="http://127.0.0.1:1")
    for call in (lambda: store.get("a"), lambda: store.create("a", b""), lambda: list(store.stream("a"))):
        with pytest.raises(StoreError) as failed:
            call()
        assert str(failed.value) == (
            "s3://yard failed at a: no answer from http://127.0.0.1:1 to 3 attempt(s); "
            "check its address, permissions and free space"
        )


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch, s3: object) -> None:
    monkeypatch.setenv("MODELYARD_STORAGE__READ_TIMEOUT_S", "0.4")
    monkeypatch.setenv("MODELYARD_STORAGE__RETRY_TIMEOUT_S", "1")
    with socket.create_server(("127.0.0.1", 0), backlog=100) as silent:
        store = S3("yard", endpoint_url=f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(StoreError, match="no answer from http://127"):
            store.get("a")


def _impatient(store: Store, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("MODELYARD_STORAGE__RETRIES", "0")
    return S3("yard", store.url.rpartition("/")[2], endpoint_url=proxy.url)
