"""The journal of access: what turns it on and off, keys side by side, and that no secret is in it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from modelyard.access import AccessJournal, Fresh, Rules
from modelyard.access.access import Access
from modelyard.access.keys import KeySource, SigningKey
from modelyard.access.tokens import Unauthorized, verify
from modelyard.errors import AlreadyExists, Conflict, InvalidInput, ModelyardError, NotFound, Refused, StoreError
from modelyard.settings import AccessSettings, load_settings
from modelyard.store import LocalDisk, Memory, Store

from .issuer import issuing
from .support import Office


def journal(keys: KeySource, store: Store) -> AccessJournal:
    return AccessJournal(store, keys, user="tester")


def test_access_is_off_until_it_is_turned_on(tmp_path: Path) -> None:
    keys = KeySource(tmp_path / "deep" / "signing.pem")
    access = journal(keys, Memory())
    assert not access.rules().on
    with pytest.raises(NotFound, match="this machine has no signing key"):
        access.create("a", "caller", ("*",), 60)
    with pytest.raises(Conflict, match="access is off"):
        access.rotate()

    public = access.init()
    assert access.rules() == Rules((public,))
    assert stat.S_IMODE(keys.file.stat().st_mode) == 0o600
    with pytest.raises(Conflict, match="access is on already"):
        access.init()
    access.off(reason="moved")
    assert not access.rules().on


def test_machines_sign_side_by_side(tmp_path: Path) -> None:
    store = Memory()
    one, other = (journal(KeySource(tmp_path / name), store) for name in ("one", "other"))
    first = one.init()
    (tmp_path / "other").write_bytes(SigningKey.generate().pem())
    with pytest.raises(Conflict, match="does not count here"):
        other.create("b", "caller", ("*",), 60)
    second = other.rotate()  # the key is there and unknown: it is published, not replaced
    tokens = [each.create("x", "caller", ("*",), 60)[0] for each in (one, other)]
    for token in tokens:
        verify(token, one.rules())

    one.revoke(first.kid, reason="the laptop is gone")
    verify(tokens[1], one.rules())
    with pytest.raises(Unauthorized):
        verify(tokens[0], one.rules())
    with pytest.raises(Conflict, match="is the only key"):
        one.revoke(second.kid)


def away(*_: object) -> bool:
    raise StoreError("the store is away")


def test_a_rotation_that_could_not_be_published_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    office = Office(tmp_path)
    with monkeypatch.context() as broken:
        broken.setattr(office.store, "create", away)
        with pytest.raises(StoreError):
            office.journal.rotate()
    with pytest.raises(Conflict, match="modelyard token rotate"):
        office.token()
    office.journal.rotate()
    assert len(office.rules.keys) == 2
    verify(office.token(), office.rules)


def test_revocations_are_kept_until_the_token_has_expired(tmp_path: Path) -> None:
    office = Office(tmp_path)
    (_, good), (_, expired) = office.made(), office.made(age_s=7200)
    for id_ in (good, expired, good):
        office.journal.revoke(id_, reason="lost")
    assert office.rules.revoked == (good,)
    assert office.journal.read().tokens[good].reason == "lost"
    with pytest.raises(NotFound, match="no token or key 'nothing'"):
        office.journal.revoke("nothing")


def test_no_secret_is_in_the_store(tmp_path: Path) -> None:
    office = Office(tmp_path, LocalDisk(tmp_path / "store"))
    token = office.token()
    office.journal.rotate()
    office.journal.revoke(office.made()[1])
    pem = office.keys.file.read_text().splitlines()[1]
    stored = "".join(path.read_text() for path in (tmp_path / "store").rglob("*") if path.is_file())
    assert "key-" in stored
    for secret in (token, token.split(".")[2], pem):
        assert secret not in stored
    assert pem not in repr(office.keys.load()) + repr(KeySource(tmp_path, pem=pem))


def test_a_key_from_a_variable(tmp_path: Path) -> None:
    key = SigningKey.generate()
    for pem in (key.pem().decode(), key.pem().decode().replace("\n", "\\n")):
        source = KeySource(tmp_path / "none", pem)
        assert journal(source, Memory()).init() == key.public
        with pytest.raises(InvalidInput, match="can't be changed from here"):
            source.replace()
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "content", ["", "mumble", "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"]
)
def test_what_is_no_key(tmp_path: Path, content: str) -> None:
    (tmp_path / "key").write_text(content)
    for source in (KeySource(tmp_path / "key"), KeySource(tmp_path, content)):
        with pytest.raises(InvalidInput, match="no Ed25519 private key") as caught:
            source.load()
        said = str(caught.value).replace(str(tmp_path), "")
        assert "c2VjcmV0" not in said and "mumble" not in said
    with pytest.raises(AlreadyExists):
        KeySource(tmp_path / "key").create()
    with pytest.raises(InvalidInput, match="can't be read"):
        KeySource(tmp_path).load()


def test_what_others_reach_is_never_open(tmp_path: Path) -> None:
    settings = load_settings(tmp_path, access=AccessSettings(signing_key_file=tmp_path / "key"))
    access = Access(Memory(), settings)
    for host in ("127.0.0.1", "::1", "localhost"):
        access.require("gateway", host)
        assert not access.rules(host)().on
    for host in ("0.0.0.0", "::", "192.0.2.1", "gateway.example"):
        with pytest.raises(Refused, match="modelyard token init"):
            access.require("gateway", host)
        assert access.rules(host)().shut
    Access(Memory(), settings.model_copy(update={"access": AccessSettings(open=True)})).require("api", "0.0.0.0")
    access.journal.init()
    access.require("gateway", "0.0.0.0")


def test_an_issuer_turns_access_on(tmp_path: Path) -> None:
    with issuing() as server:
        access = Access(Memory(), load_settings(tmp_path, access=server.settings))
    access.require("gateway", "0.0.0.0")
    assert access.rules("127.0.0.1")().on
    assert access.issuer is not None and access.issuer.values(("deployer",)) == ("ml",)


def test_a_value_stays_while_it_cannot_be_read() -> None:
    now, values = [0.0], iter([1, 2])

    def read() -> int:
        try:
            return next(values)
        except StopIteration:
            raise StoreError("the store is away") from None

    fresh = Fresh(read, max_age_s=1, clock=lambda: now[0])
    seen = []
    for now[0] in (0.0, 0.5, 1.5, 3.0):
        seen.append(fresh())
    assert seen == [1, 1, 2, 2]
    with pytest.raises(ModelyardError):
        Fresh(read)()
