"""Where the credentials of a bucket come from, and how they stay out of everything that is said or written.

They are never settings of ours: obstore reads the usual variables and the machine's own roles. What it does not read,
the profiles of AWS, is read here. Knows nothing of requests.
"""

from __future__ import annotations

import os
import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from modelyard.errors import InvalidInput, MissingExtra, SettingsError

if TYPE_CHECKING:
    from obstore.auth.boto3 import Boto3CredentialProvider

# Short enough that temporary credentials are asked for again before they expire: boto3 renews them ten minutes ahead.
_LIFETIME = timedelta(minutes=5)
_ROLES = ("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI")
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_SIGNED = re.compile(
    r"((?:X-(?:Amz|Goog)-(?:Signature|Credential|Security-Token)|AWSAccessKeyId|GoogleAccessId|Signature|sig)=)[^&\s\"'<>]+",
    re.I,
)
_USERINFO = re.compile(r"://[^/\s@]+@")


def redact(text: str) -> str:
    """The text without what would open a store: signatures in addresses, names and passwords before a host."""
    return _USERINFO.sub("://…@", _SIGNED.sub(r"\1…", text))


def check_address(url: str) -> None:
    """Raises InvalidInput, without repeating them, for credentials inside an address: it is logged and recorded."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise InvalidInput("the address of the store can't be read", remedy="use s3://bucket/prefix") from error
    bucket_and_port = parts.scheme in ("s3", "gs", "az") and ":" in parts.netloc  # a secret may hold a slash
    if "@" in parts.netloc or bucket_and_port or _SIGNED.search(parts.query):
        raise InvalidInput(
            f"the address {parts.scheme}://… holds credentials",
            remedy="leave them out and set the provider's usual variables or a profile, such as AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY",
        )


def check_endpoint(url: str) -> str:
    """The address of an S3 server itself. Raises SettingsError for one that is none, InvalidInput for credentials."""
    check_address(url)
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or any(c.isspace() for c in url):
        raise SettingsError(f"{redact(url)!r} is not the address of an S3 server", remedy="use https://host:port")
    return url


def aws_endpoint() -> str | None:
    """The address of an S3 server that the usual variables name."""
    return next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), None)


def aws_profile() -> Boto3CredentialProvider | None:
    """What a profile of AWS gives (keys, roles, single sign-on); None where variables or the machine's role count.

    Raises SettingsError for a profile that is not there, MissingExtra when boto3 is needed to read it.
    """
    environ = os.environ
    named = environ.get("AWS_PROFILE") or environ.get("AWS_DEFAULT_PROFILE")
    keys = _file("AWS_SHARED_CREDENTIALS_FILE", "credentials").is_file()
    found = keys or _file("AWS_CONFIG_FILE", "config").is_file()
    if environ.get("AWS_ACCESS_KEY_ID") or not (named or (found and not any(environ.get(name) for name in _ROLES))):
        return None
    try:
        return _provider(environ.get("AWS_REGION"))
    except ImportError:
        if named or keys:
            raise MissingExtra("boto3, which reads profiles of AWS,", "s3") from None
    except ValueError as error:  # no credentials anywhere
        if named:
            raise SettingsError(f"the AWS profile {named!r} holds no credentials", remedy="log in to it") from error
    return None


def _provider(region: str | None) -> Boto3CredentialProvider:
    import boto3
    from botocore.exceptions import BotoCoreError
    from obstore.auth.boto3 import Boto3CredentialProvider

    try:
        provider = Boto3CredentialProvider(boto3.Session(region_name=region), ttl=_LIFETIME)
    except BotoCoreError as error:
        raise SettingsError(f"AWS credentials: {error}", remedy="check AWS_PROFILE and ~/.aws/config") from error
    return provider


def _file(variable: str, name: str) -> Path:
    return Path(os.environ.get(variable) or Path.home() / ".aws" / name).expanduser()
