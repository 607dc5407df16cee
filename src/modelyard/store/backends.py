"""Where a store can be: one small constructor each. A new kind is one function and one line in `open_store`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, LocalStore, MemoryStore, S3Store

from modelyard.errors import InvalidInput, NotFound, SettingsError, StoreError
from modelyard.settings import load_settings
from modelyard.store.objects import Store

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config

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
    endpoint = endpoint_url or settings.s3_endpoint_url
    config: S3Config = {"virtual_hosted_style_request": endpoint is None}
    if endpoint:
        config["endpoint"] = endpoint
    if "AWS_UNSIGNED_PAYLOAD" not in os.environ:
        config["unsigned_payload"] = _arrives_unchanged(endpoint)
    options: ClientConfig = {"allow_http": bool(endpoint and endpoint.startswith("http:"))}
    backend = S3Store(bucket, prefix=prefix, config=config, client_options=options)
    return Store(backend, _url("s3", bucket, prefix))


def GCS(bucket: str, prefix: str | None = None) -> Store:  # noqa: N802
    """A Google Cloud Storage bucket; credentials from the environment."""
    return Store(GCSStore(bucket, prefix=prefix), _url("gs", bucket, prefix))


def Azure(container: str, prefix: str | None = None) -> Store:  # noqa: N802
    """An Azure Blob Storage container; account and credentials from the environment."""
    return Store(AzureStore(container, prefix=prefix), _url("az", container, prefix))


def open_store(url: str, *, endpoint_url: str | None = None) -> Store:
    """The store a URL names: `s3://`, `gs://`, `az://`, `memory://`, `file://` or the path of a folder that exists."""
    parts = urlsplit(url)
    prefix = parts.path.strip("/") or None
    match parts.scheme:
        case "s3" if parts.netloc:
            return S3(parts.netloc, prefix, endpoint_url=endpoint_url)
        case "gs" if parts.netloc:
            return GCS(parts.netloc, prefix)
        case "az" if parts.netloc:
            return Azure(parts.netloc, prefix)
        case "memory":
            return Memory()
        case "" | "file":
            folder = Path(unquote(parts.path) if parts.scheme else url).expanduser()
            if not folder.is_dir():
                raise NotFound(f"there is no store at {folder}", remedy=f"make one with `modelyard init {folder}`")
            return LocalDisk(folder)
    raise InvalidInput(f"{url!r} names no store", remedy="use s3://bucket/prefix, gs://…, az://… or a folder")


def _arrives_unchanged(endpoint: str | None) -> bool:
    """TLS protects what it carries, and what stays on this machine needs no protection: no second hash for signing."""
    parts = urlsplit(endpoint or "https:")
    return parts.scheme == "https" or parts.hostname in _LOOPBACK


def _url(scheme: str, bucket: str, prefix: str | None) -> str:
    return f"{scheme}://{bucket}/{prefix}" if prefix else f"{scheme}://{bucket}"
