"""A model hub that refuses, breaks off or lies: one clear line, and nothing left behind."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import huggingface_hub
import pytest

from modelyard.errors import IntegrityError, InvalidInput, MissingExtra, ModelyardError, NotFound, Refused, Unavailable
from modelyard.importer import ModelImporter
from modelyard.repository import ModelRepository
from modelyard.store.files import Filter

from .model import LFS, NAME, WEIGHTS, builders
from .server import Answer, HubServer, Repository, hub_server, of_files

# A hub that refuses.


def refusing(status: int, code: str = "", **headers: str) -> Callable[[Answer], bool]:
    return lambda answer: answer.error(status, code, **headers)


@pytest.mark.parametrize(
    ("status", "code", "headers", "error", "why"),
    [
        (403, "GatedRepo", {}, Refused, r"tiny-org/Tiny-Model is gated; accept its conditions at http://127\.0\.0\.1"),
        (
            401,
            "",
            {"X-Error-Message": "Invalid credentials in Authorization header"},
            Refused,
            "does not take the token",
        ),
        (403, "", {"X-Error-Message": "Access to this resource is disabled."}, Refused, "is disabled"),
        (403, "", {}, Refused, "may not read"),
        (404, "RevisionNotFound", {}, NotFound, "has no revision 'main'; name a branch"),
        (404, "RepoNotFound", {}, NotFound, "there is no model tiny-org/Tiny-Model at"),
        (418, "", {}, Unavailable, "answered 418"),
    ],
)
def test_refusals(
    importer: ModelImporter,
    hub: HubServer,
    rests: list[float],
    status: int,
    code: str,
    headers: dict[str, str],
    error: type[Exception],
    why: str,
) -> None:
    hub.faults.append(refusing(status, code, **headers))
    with pytest.raises(error, match=why):
        importer.import_model(f"hf://{NAME}")
    assert len(hub.requests) == 1 and rests == []


def test_a_rate_limit_is_kept(importer: ModelImporter, hub: HubServer, rests: list[float]) -> None:
    hub.faults.append(of_files(refusing(429, **{"Retry-After": "7"}), times=2, path="/tree/"))
    hub.faults.append(of_files(refusing(429, RateLimit='"resolvers";r=0;t=55'), times=1))
    importer.import_model(f"hf://{NAME}")
    assert rests == [7, 7, 55]


def test_a_rate_limit_that_takes_too_long(importer: ModelImporter, hub: HubServer, rests: list[float]) -> None:
    hub.faults.append(refusing(429, **{"Retry-After": "3600"}))
    with pytest.raises(Unavailable, match=r"answered 429; try again in 3600 s"):
        importer.import_model(f"hf://{NAME}")
    assert rests == []


def test_a_hub_that_is_down(importer: ModelImporter, hub: HubServer, rests: list[float]) -> None:
    hub.faults.append(refusing(503))
    with pytest.raises(Unavailable, match=rf"hf://{NAME}: {hub.url} answered 503; try again later"):
        importer.import_model(f"hf://{NAME}")
    assert rests == [0.5, 1, 2, 4, 8]


def test_nobody_listens(importer: ModelImporter, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with hub_server() as gone:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", gone.url)
    with pytest.raises(Unavailable, match="can't be reached"):
        importer.import_model(f"hf://{NAME}")


def test_offline(importer: ModelImporter, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(Unavailable, match="HF_HUB_OFFLINE is set; unset it"):
        importer.import_model(f"hf://{NAME}")
    assert hub.requests == []


def test_without_its_library(importer: ModelImporter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtra, match=r"huggingface_hub is not installed; pip install 'modelyard\[huggingface\]'"):
        importer.import_model(f"hf://{NAME}")


# Connections that break.


def test_an_interrupted_file_is_taken_up_at_the_last_byte(
    importer: ModelImporter, repository: ModelRepository, hub: HubServer, rests: list[float]
) -> None:
    data, sent = bytes(range(256)) * 4096, 300_000
    hub.repositories[NAME].files = {"weights.dat": data}
    with importer.open(f"hf://{NAME}") as candidate:
        hub.faults.append(of_files(lambda answer: answer.content(data, most=sent), times=3))
        hub.requests.clear()
        assert b"".join(candidate.files[0].chunks()) == data
    starts = [int(request.headers["Range"].split("=")[1].split("-")[0]) for request in hub.requests]
    assert starts == [0, sent, 2 * sent, 3 * sent]
    assert len(rests) == 3


def test_resets(importer: ModelImporter, repository: ModelRepository, hub: HubServer) -> None:
    hub.repositories[NAME] = Repository({"model.safetensors": WEIGHTS}, LFS)
    cut = iter([None, 1, 100_000, 0, 250_000, 900_000])  # the first is for inspection
    hub.faults.append(of_files(lambda answer: answer.content(WEIGHTS, most=next(cut, None), reset=True)))
    version = importer.import_model(f"hf://{NAME}")
    assert (repository.fetch(version) / "model.safetensors").read_bytes() == WEIGHTS


def test_a_hub_that_knows_no_ranges(importer: ModelImporter, repository: ModelRepository, hub: HubServer) -> None:
    hub.repositories[NAME].files = {"weights.dat": WEIGHTS}
    breaks = [True, True]

    def whole(answer: Answer) -> bool:
        del answer.headers["Range"]
        return answer.content(WEIGHTS, most=1_000_000 if breaks and breaks.pop() else None)

    hub.faults.append(of_files(whole))
    version = importer.import_model(f"hf://{NAME}")
    assert (repository.fetch(version) / "weights.dat").read_bytes() == WEIGHTS


def test_a_file_that_never_comes_to_its_end(
    importer: ModelImporter, repository: ModelRepository, hub: HubServer, rests: list[float]
) -> None:
    def ends(answer: Answer) -> bool:
        return answer.headers["Range"] != f"bytes=0-{(256 << 10) - 1}" and answer.content(WEIGHTS, most=0)

    hub.faults.append(of_files(ends))
    with pytest.raises(Unavailable, match=rf"model\.safetensors of hf://{NAME}: the connection to .* broke"):
        importer.import_model(f"hf://{NAME}", files=Filter(["model.safetensors"]))
    assert repository.list_models() == []


def test_what_has_arrived_is_not_fetched_again(
    importer: ModelImporter, repository: ModelRepository, hub: HubServer, rests: list[float]
) -> None:
    hub.repositories[NAME] = Repository({"a.dat": WEIGHTS, "b.dat": WEIGHTS[::-1]}, frozenset({"a.dat", "b.dat"}))
    whole = f"bytes=0-{len(WEIGHTS) - 1}"

    def breaks_off(answer: Answer) -> bool:
        """The second file, once the first one is there."""
        if answer.headers["Range"] != whole:
            return False
        deadline = time.monotonic() + 10
        while not any(each.key.endswith("/a.dat") for each in repository.storage.objects("models")):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        return answer.content(WEIGHTS, most=0)

    hub.faults.append(of_files(breaks_off, path="/b.dat"))
    with pytest.raises(Unavailable, match=r"b\.dat of hf://.*: the connection to .* broke; try again later"):
        importer.import_model(f"hf://{NAME}")
    hub.faults.clear()
    hub.requests.clear()
    version = importer.import_model(f"hf://{NAME}")
    fetched = [request.path.rpartition("/")[2] for request in hub.requests if request.headers.get("Range") == whole]
    assert fetched == ["b.dat"]
    assert repository.verify(version) == []


# A hub that lies.


def wrong(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda entry: entry | changes


LIES: dict[str, tuple[Callable[[dict[str, Any]], Any], type[ModelyardError], str]] = {
    "parent": (wrong(path="../x"), InvalidInput, r"'\.\./x' leaves its folder"),
    "absolute": (wrong(path="/etc/passwd"), InvalidInput, "leaves its folder"),
    "inner": (wrong(path="a/../../x"), InvalidInput, "leaves its folder"),
    "backslash": (wrong(path="a\\..\\x"), InvalidInput, "can't be kept on every system"),
    "control": (wrong(path="a\nb"), InvalidInput, "can't be kept on every system"),
    "twice": (wrong(path="config.json"), InvalidInput, "config.json is there twice"),
    "case": (wrong(path="Config.json"), InvalidInput, "differ by case alone"),
    "api": (wrong(path="../../api/whoami-v2"), InvalidInput, "leaves its folder"),
    "shorter": (wrong(size=100), IntegrityError, "bytes long, not 100 as listed"),
    "terabytes": (wrong(size=1 << 60), IntegrityError, "bytes long, not 1152921504606846976 as listed"),
    "negative": (wrong(size=-1), InvalidInput, "it must be at least 0"),
    "no-number": (wrong(size="much"), InvalidInput, "does not answer as a Hugging Face Hub does"),
    "other-content": (wrong(oid="0" * 40), IntegrityError, "README.md of hf://.* is not what its source says it is"),
    "other-sha256": (
        wrong(lfs={"oid": "0" * 64, "size": 48, "pointerSize": 1}),
        IntegrityError,
        "README.md is not what",
    ),
    "no-digest": (wrong(lfs={"oid": "../../x", "size": 48, "pointerSize": 1}), InvalidInput, "lfs.oid"),
    "a-list": (lambda entry: [], InvalidInput, "does not answer as a Hugging Face Hub does"),
}


@pytest.mark.parametrize("lie", LIES)
def test_lies_about_a_file(importer: ModelImporter, repository: ModelRepository, hub: HubServer, lie: str) -> None:
    change, error, why = LIES[lie]
    entries = hub.repositories[NAME].entries()
    entries[0] = change(entries[0])
    hub.faults.append(of_files(lambda answer: answer.json(entries), path="/tree/"))
    with pytest.raises(error, match=why) as caught:
        importer.import_model(f"hf://{NAME}", files=Filter(exclude=["quant/*"]))
    assert "\n" not in str(caught.value)
    assert builders.left_behind(repository) == []


def test_bytes_that_change_between_looking_and_moving(
    importer: ModelImporter, repository: ModelRepository, hub: HubServer
) -> None:
    good, bad = builders.npy([1.0]), builders.hostile()
    entry = {"type": "file", "path": "x.npy", "size": len(good), "oid": ""}
    hub.faults.append(of_files(lambda answer: answer.json([entry]), path="/tree/"))
    hub.faults.append(of_files(lambda answer: answer.content(good), times=1))
    hub.faults.append(of_files(lambda answer: answer.content(bad.ljust(len(good), b"."))))
    with pytest.raises(IntegrityError, match="not what they were a moment ago"):
        importer.import_model(f"hf://{NAME}")
    assert builders.left_behind(repository) == []


ANSWERS: dict[str, tuple[bytes, str]] = {
    "html": (b"<html>", "does not answer as a Hugging Face Hub does; check HF_ENDPOINT"),
    "deep": (b"[" * 100_000, "does not answer as a Hugging Face Hub does"),
    "no-commit": (b'{"id": "x", "sha": "main"}', "does not answer as a Hugging Face Hub does: sha"),
    "long": (b" " * (33 << 20), "more than 32 MB"),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_answers_of_another_kind(importer: ModelImporter, hub: HubServer, answer: str) -> None:
    body, why = ANSWERS[answer]
    hub.faults.append(lambda request: request.send(200, body))
    with pytest.raises(InvalidInput, match=why):
        importer.import_model(f"hf://{NAME}")


def test_a_list_without_end(importer: ModelImporter, hub: HubServer) -> None:
    entries = [{"type": "file", "path": f"{number}", "size": 0, "oid": ""} for number in range(1000)]

    def endless(answer: Answer) -> bool:
        return answer.json(entries, headers={"Link": f'<{hub.url}{answer.path}>; rel="next"'})

    hub.faults.append(of_files(endless, path="/tree/"))
    with pytest.raises(InvalidInput, match="more than 10000 files"):
        importer.import_model(f"hf://{NAME}")
    assert len(hub.requests) < 20


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://[broken", ""])
def test_redirects_to_nowhere(importer: ModelImporter, repository: ModelRepository, hub: HubServer, to: str) -> None:
    hub.faults.append(of_files(lambda answer: answer.send(302, headers={"Location": to})))
    with pytest.raises(Unavailable):
        importer.import_model(f"hf://{NAME}")
    assert builders.left_behind(repository) == []


@pytest.mark.parametrize(
    "address", ["hf://", "hf://a/b/c", "hf://a/../b", "hf://a b", "hf://a@", "hf://datasets/a/b", "hf:///a", "hf://a?b"]
)
def test_addresses_that_name_no_model(importer: ModelImporter, address: str) -> None:
    with pytest.raises(InvalidInput, match=r"names no model on the Hub; write hf://org/name"):
        importer.import_model(address)


def test_an_endpoint_with_a_password(importer: ModelImporter, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url.replace("http://", "http://ada:geheim@"))
    version = importer.import_model(f"hf://{NAME}", files=Filter(["*.json"]))
    assert "geheim" not in version.to_json().decode()
    with pytest.raises(NotFound) as caught:
        importer.import_model("hf://nobody/nothing")
    assert "geheim" not in str(caught.value)
