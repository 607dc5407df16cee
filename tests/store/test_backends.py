"""Opening stores, and how each kind's failures read."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from modelyard.errors import InvalidInput, ModelyardError, NotFound, SettingsError, StoreError
from modelyard.store import S3, LocalDisk, Memory, Store, open_store


def test_a_folder_store_opens_by_path_and_by_url(tmp_path: Path) -> None:
    made = LocalDisk(tmp_path / "new folder")
    made.put("a", b"1")
    assert open_store(str(tmp_path / "new folder")).get("a") == b"1"
    assert open_store(made.url).get("a") == b"1"


def test_an_s3_store_opens_by_url(shared_store: Store) -> None:
    shared_store.put("a/b", b"1")
    assert open_store(shared_store.url).get("a/b") == b"1"


def test_the_settings_name_a_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_STORE", "s3://bucket/ai")
    assert S3().url == "s3://bucket/ai"
    monkeypatch.setenv("MODELYARD_STORE", "./folder")
    with pytest.raises(SettingsError, match="no S3 bucket is set; set MODELYARD_STORE=s3://bucket/prefix"):
        S3()


@pytest.mark.parametrize("url", ["ftp://host/x", "s3://", "s3:///key", "http://bucket", "az://"])
def test_an_address_of_nothing_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="names no store; use s3://"):
        open_store(url)


def test_a_missing_folder_is_not_made_silently(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"there is no store at .*gone; make one with `modelyard init"):
        open_store(str(tmp_path / "gone"))


def test_a_folder_below_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"can't use .*below as a store") as failed:
        LocalDisk(tmp_path / "file" / "below")
    assert "\n" not in str(failed.value)


def test_an_emptied_folder_is_gone(tmp_path: Path) -> None:
    store = LocalDisk(tmp_path)
    store.put("models/m/v1/a/b", b"")
    store.put("models/n", b"")
    store.delete(["models/m/v1/a/b"])
    assert store.list_directories("models") == []
    assert [path.name for path in tmp_path.iterdir()] == ["models"]


def test_a_folder_may_be_filled_while_another_writer_empties_it(tmp_path: Path) -> None:
    store = LocalDisk(tmp_path)

    def work(writer: int) -> None:
        for number in range(60):
            key = f"deep/er/{number % 3}/{writer}"
            assert store.create(key, b"1")
            assert store.get(key) == b"1"
            store.put(key, b"2")
            store.delete([key])
        store.put(f"deep/er/kept-{writer}", b"kept")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert sorted(found.key for found in store.objects("")) == [f"deep/er/kept-{writer}" for writer in range(8)]


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path: Path) -> None:
    store = LocalDisk(tmp_path)
    store.put("a", b"")
    with pytest.raises(StoreError, match=r"failed at a/b: .*Not a directory"):
        store.put("a/b", b"")


def test_a_missing_bucket_is_a_failure_of_the_store(
    s3_server: str, shared_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tester")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-tester")
    missing = S3("no-such-bucket", endpoint_url=s3_server)
    for request in (lambda: missing.get("a"), lambda: list(missing.objects("a"))):
        with pytest.raises(ModelyardError) as failed:
            request()
        assert "does not exist (NoSuchBucket)" in str(failed.value)
        assert isinstance(failed.value, StoreError)


def test_wrong_credentials_are_one_line(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "else")
    with pytest.raises(StoreError, match=r"InvalidAccessKeyId\); check its address, permissions") as failed:
        S3("yard", endpoint_url=s3_server).put("a", b"")
    assert "\n" not in str(failed.value)


def test_a_download_that_fails_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Memory()
    store.put("m/a", b"1")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    downloaded = store.download("m")
    assert list(tmp_path.iterdir()) == [downloaded]

    def failing(key: str) -> bytes:
        raise StoreError("gone")

    monkeypatch.setattr(store, "stream", failing)
    with pytest.raises(StoreError, match="gone"):
        store.download("m")
    assert list(tmp_path.iterdir()) == [downloaded]


def test_a_download_to_where_nothing_can_be_written_is_one_line(tmp_path: Path) -> None:
    store = Memory()
    store.put("m/a", b"1")
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput, match=r"can't write .*file/below/a: Not a directory; check the path"):
        store.download("m", tmp_path / "file" / "below")
