"""Where a store can be: one small constructor each. A new kind is one function and one line in `open_store`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, LocalStore, MemoryStore, S3Store

from modelyard.errors import InvalidInput, NotFound, SettingsError, StoreError
from modelyard.settings import StorageSettings, load_settings
from modelyard.store.credentials import aws_endpoint, aws_profile, check_address, check_endpoint, redact
from modelyard.store.objects import Store

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Config

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def LocalDisk(folder: str | Path) -> Store:  # noqa: N802 - a constructor, named like the others
    """A folder on this machine, made when it is not there."""
    path = Path(folder).expanduser().resolve()
    try:
        return Store(LocalStore(path, mkdir=True, automatic_cleanup=True), path.as_uri(), ordered=False)
    except (BaseError, OSError, ValueError) as error:
        raise StoreError(f"can't use {path} as a store: {error}".splitlines()[0], remedy="check the path") from error


def Memory() -> Store:  # noqa: N802
    """A store that lasts as long as the object."""
    return Store(MemoryStore(), "memory://")


def S3(bucket: str | None = None, prefix: str | None = None, *, endpoint_url: str | None = None) -> Store:  # noqa: N802
    """An S3 bucket (AWS or compatible). Without a bucket, the one the settings name.

    Credentials come from the usual AWS variables and profiles.
    """
    settings = load_settings()
    if bucket is None:
        if settings.store is None or not settings.store.startswith("s3://"):
            raise SettingsError("no S3 bucket is set", remedy="set MODELYARD_STORE=s3://bucket/prefix")
        return open_store(settings.store, endpoint_url=endpoint_url)
    endpoint = s3_endpoint(endpoint_url)
    config: S3Config = {"virtual_hosted_style_request": endpoint is None}
    if endpoint:
        config["endpoint"] = endpoint
    if "AWS_UNSIGNED_PAYLOAD" not in os.environ:
        config["unsigned_payload"] = _arrives_unchanged(endpoint)
    options, retries = _patience(settings.storage)
    options["allow_http"] = bool(endpoint and endpoint.startswith("http:"))
    profile = aws_profile()
    return _bucket(
        "s3",
        bucket,
        prefix,
        lambda: S3Store(
            bucket,
            prefix=prefix,
            config=config,
            client_options=options,
            retry_config=retries,
            credential_provider=profile,
        ),
    )


def s3_endpoint(given: str | None = None) -> str | None:
    """The address of the S3 server: as given, else of the settings, else of the usual variables; None for AWS."""
    endpoint = given or load_settings().s3_endpoint_url or aws_endpoint()
    return check_endpoint(endpoint) if endpoint else None


def GCS(bucket: str, prefix: str | None = None) -> Store:  # noqa: N802
    """A Google Cloud Storage bucket; credentials from the environment."""
    options, retries = _patience(load_settings().storage)
    return _bucket(
        "gs",
        bucket,
        prefix,
        lambda: GCSStore(bucket, prefix=prefix, client_options=options, retry_config=retries),
    )


def Azure(container: str, prefix: str | None = None) -> Store:  # noqa: N802
    """An Azure Blob Storage container; account and credentials from the environment."""
    options, retries = _patience(load_settings().storage)
    return _bucket(
        "az",
        container,
        prefix,
        lambda: AzureStore(container, prefix=prefix, client_options=options, retry_config=retries),
    )


def open_store(url: str, *, endpoint_url: str | None = None) -> Store:
    """The store a URL names: `s3://`, `gs://`, `az://`, `memory://`, `file://` or the path of a folder that exists."""
    check_address(url)
    parts = urlsplit(url)
    prefix = parts.path.strip("/") or None
    bucket = parts.netloc if not (parts.query or parts.fragment) else ""
    match parts.scheme:
        case "s3" if bucket:
            return S3(bucket, prefix, endpoint_url=endpoint_url)
        case "gs" if bucket:
            return GCS(bucket, prefix)
        case "az" if bucket:
            return Azure(bucket, prefix)
        case "memory":
            return Memory()
        case "" | "file":
            folder = Path(unquote(parts.path) if parts.scheme else url).expanduser()
            if not folder.is_dir():
                raise NotFound(f"there is no store at {folder}", remedy=f"make one with `modelyard init {folder}`")
            return LocalDisk(folder)
    raise InvalidInput(f"{redact(url)!r} names no store", remedy="use s3://bucket/prefix, gs://…, az://… or a folder")


def _arrives_unchanged(endpoint: str | None) -> bool:
    """TLS protects what it carries, and what stays on this machine needs no protection: no second hash for signing."""
    parts = urlsplit(endpoint or "https:")
    return parts.scheme == "https" or parts.hostname in _LOOPBACK


def _bucket(
    scheme: str, name: str, prefix: str | None, connect: Callable[[], S3Store | GCSStore | AzureStore]
) -> Store:
    """A store in a bucket. Raises InvalidInput for a bucket that can't be, SettingsError for unusable credentials."""
    url = f"{scheme}://{name}/{prefix}" if prefix else f"{scheme}://{name}"
    check_address(url)
    if not _BUCKET.fullmatch(name):
        raise InvalidInput(f"{name!r} can't be the name of a bucket", remedy="use letters, digits, '.', '_' and '-'")
    try:
        return Store(connect(), url)
    except (BaseError, OSError, ValueError) as error:
        why = redact(str(error)).splitlines()[0]
        raise SettingsError(f"{url} can't be opened: {why}", remedy="check the provider's usual variables") from None


def _patience(settings: StorageSettings) -> tuple[ClientConfig, RetryConfig]:
    """How long requests wait and how often they are sent again.

    obstore's own limit on a whole request would end every long transfer; silence is what tells that nothing comes.
    """
    options: ClientConfig = {
        "connect_timeout": timedelta(seconds=settings.connect_timeout_s),
        "read_timeout": timedelta(seconds=settings.read_timeout_s),
        "timeout": timedelta(days=1),
    }
    wait = timedelta(seconds=settings.retry_timeout_s)
    return options, {"max_retries": settings.retries, "retry_timeout": wait}
