"""Settings: `modelyard.toml` below MODELYARD_* variables, frozen after start.

Knows where values come from, not what is done with them. Nested values are written `MODELYARD_GATEWAY__PORT=8080`.
"""

from __future__ import annotations

import difflib
import getpass
import os
import socket
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from annotated_types import Ge
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from pydantic_settings import (
    SettingsError as SourceError,
)

from modelyard.errors import SettingsError
from modelyard.wording import fields, phrase

FILE_NAME = "modelyard.toml"
STORE_FOLDER = ".modelyard"
Environment = Literal["development", "production"]
Role = Literal["viewer", "caller", "deployer", "admin"]
_DNS_LABEL = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
_SECRET = {"token", "access.signing_key"}
SECRET_VARIABLES = {"MODELYARD_TOKEN", "MODELYARD_ACCESS__SIGNING_KEY"}


def _size(value: Any) -> Any:
    return None if value in (0, "0") or (isinstance(value, str) and value.strip().lower() == "none") else value


def _port_range(value: str) -> str:
    first, dash, last = value.partition("-")
    if not (dash and first.isdecimal() and last.isdecimal() and 1024 <= int(first) <= int(last) <= 65535):
        raise ValueError("it is no range of ports from 1024 to 65535, such as 20000-29999")
    return value


def _one_word(value: SecretStr) -> SecretStr:
    """What goes into a header; a file's last line break does not."""
    text = value.get_secret_value().strip()
    if not text.isascii() or not text.isprintable() or " " in text or not text:
        raise ValueError("it is no token")
    return SecretStr(text)


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StorageSettings(_Section):
    """How patient requests to a bucket are. A request that fails for a passing reason is sent again, ever later."""

    connect_timeout_s: float = Field(5, gt=0, description="how long a connection to the bucket's server may take")
    read_timeout_s: float = Field(
        60, gt=0, description="how long the server may be silent; also what sending one part of a file may take"
    )
    retries: int = Field(10, ge=0, le=100, description="how often a request is sent again at most")
    retry_timeout_s: float = Field(90, ge=0, description="after that a request is not sent again")


class GatewaySettings(_Section):
    host: str = Field("127.0.0.1", description="the address that the gateway listens on")
    port: int = Field(7070, ge=1, le=65535, description="the port that the gateway listens on")
    workers: int = Field(2, ge=1, le=256, description="Envoy's worker threads")
    body_limit: int = Field(16 * 1024 * 1024, ge=1024, description="largest request body, bytes")
    token_metrics: bool = Field(True, description="whether the tokens that answers tell of are counted")
    access_log: Path | None = Field(
        None, description="a file that gets a line of JSON for each request, without bodies; unset: none"
    )
    otlp_endpoint: str | None = Field(
        None,
        pattern=r"^http://[^/\s]+(/\S*)?$",
        description="where traces go, by OTLP over HTTP, such as `http://localhost:4318`; unset: nowhere",
    )
    trace_percent: float = Field(
        100, ge=0, le=100, description="how many of the requests are traced that come without a decision of their own"
    )

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


class ApiSettings(_Section):
    host: str = Field("127.0.0.1", description="the address that the API listens on")
    port: int = Field(7071, ge=1, le=65535, description="the port that the API listens on")
    presigned: bool = Field(
        True,
        description="whether clients get files from the store itself, by addresses it signs for them; "
        "`false` if they can't reach it",
    )

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


class ServingSettings(_Section):
    max_batch: int = Field(32, ge=1, le=65536, description="rows that are computed together at most")
    max_batch_tokens: int = Field(
        512,
        ge=1,
        description="tokens that are computed together at most, padding counted, where a model's runtime knows",
    )
    batch_delay_ms: float = Field(
        2.0, ge=0, le=1000, description="how long a batch waits for more at most, while requests keep coming"
    )
    queue_limit: int = Field(4096, ge=1, description="rows that wait at most; beyond it requests get 429")
    trust_code: tuple[str, ...] = Field(
        (),
        description="models whose own Python code (`handler.py`) may run here: names, `name:v1.2.0`, or digests, which "
        "alone say what the code is",
    )
    ready_timeout_s: float = Field(120, gt=0, description="a replica that is not ready by then has failed")
    memory_budget: Annotated[Annotated[ByteSize, Ge(1)] | None, BeforeValidator(_size)] = Field(
        None,
        description="what all models of one process that loads them on demand may take, such as `8 GiB`; those used "
        "longest ago go first; `0` or `none`: half of the machine's memory",
    )
    idle_timeout_s: float = Field(300, gt=0, description="a model on demand that nobody asked for so long is unloaded")
    drain_timeout_s: float = Field(60, gt=0, description="what a stopping replica may take to finish its requests")


class EngineSettings(_Section):
    """Engines that run on their own, by their addresses (None: the gateway of `modelyard up`), and how vLLM is
    started."""

    vllm_url: str = Field("http://localhost:8000", description="the address of a vLLM of your own")
    ollama_url: str = Field("http://localhost:11434", description="the address of an Ollama of your own")
    pytorch_url: str | None = Field(
        None, description="the address of a PyTorch server (Open Inference Protocol v2 or TorchServe)"
    )
    llamacpp_url: str | None = Field(None, description="the address of a llama.cpp server")
    torchserve_url: str = Field("http://localhost:8080", description="the address of a TorchServe of your own")
    vllm_command: str | None = Field(
        None,
        description="the program `vllm` of an environment of its own, with which versions are deployed; unset: "
        "vLLM is not started on this machine",
    )
    vllm_arguments: tuple[str, ...] = Field(
        (), description='options of `vllm serve` for every version, such as `["--dtype", "float32"]`'
    )
    timeout_s: float = Field(300, gt=0, description="how long an answer of an engine may take")


class DeploymentSettings(_Section):
    target: Literal["local", "kubernetes", "none"] = Field(
        "local",
        description="`local`: replicas on this machine, run by `modelyard up`; "
        "`kubernetes`: pods in a cluster, run by `modelyard controller`; "
        "`none`: deployments are recorded only, another system carries them out",
    )
    replicas: int = Field(1, ge=1, le=64, description="how many replicas a model gets at its first deployment")
    timeout_s: float = Field(300, gt=0, description="how long stage, promote and rollback wait for the rollout")
    ports: Annotated[str, AfterValidator(_port_range)] = Field(
        "20000-29999",
        description="what replicas on this machine listen on; better below the ports that the system takes for "
        "outgoing connections",
    )
    log_size: Annotated[ByteSize, Ge(1024)] = Field(
        ByteSize(10 * 2**20),
        description="a replica's log on this machine is started anew when it is larger, such as `10 MiB`; the part "
        "before is kept",
    )

    @property
    def port_range(self) -> range:
        first, last = self.ports.split("-")
        return range(int(first), int(last) + 1)


class KubernetesSettings(_Section):
    """Where and how models run on Kubernetes."""

    context: str | None = Field(None, description="the context of the kubeconfig; unset: its current one, or the pod's")
    namespace: str | None = Field(
        None, pattern=_DNS_LABEL, description="the namespace; unset: that of the context, or of the pod"
    )
    image: str | None = Field(
        None, min_length=1, description="the image of replicas, such as `registry.example/modelyard:0.1.0`"
    )
    image_pull_secrets: tuple[str, ...] = Field((), description="secrets with the registry's credentials")
    store_secret: str | None = Field(
        None, description="a secret whose keys become variables of replicas, such as `AWS_ACCESS_KEY_ID`"
    )
    service_account_annotations: dict[str, str] = Field(
        default_factory=dict, description="annotations of replicas' service accounts, which give them a cloud's role"
    )
    cache: str = Field(
        "emptyDir",
        pattern=r"^(emptyDir|hostPath:/\S+|pvc:[a-z0-9.-]+)$",
        description="where replicas keep models' files: `emptyDir`, `hostPath:/FOLDER` on each node, or `pvc:CLAIM`",
    )
    node_selector: dict[str, str] = Field(default_factory=dict, description="labels of the nodes that replicas run on")
    port: int = Field(8080, ge=1024, le=65535, description="the port that replicas listen on")
    gateways: str | None = Field(
        None, description="a name that has the addresses of all gateways, which count; unset: `gateway.host`"
    )
    drain_delay_s: int = Field(
        5, ge=0, le=300, description="how long a pod that is to end goes on answering, until every gateway knows"
    )
    min_ready_s: int = Field(
        10, ge=0, description="how long a new replica must have been ready before an old one may go"
    )
    progress_deadline_s: int = Field(600, ge=1, description="a rollout on which nothing moved for so long has failed")
    request_timeout_s: float = Field(10, gt=0, description="how long one request to the API server may take")
    patience_s: float = Field(120, ge=0, description="how long an API server that is away is asked again")


class ScanSettings(_Section):
    pickles: Literal["none", "allow-listed", "any"] = Field(
        "allow-listed",
        description="which pickles are taken: `none` at all, those that are mere data (`allow-listed`; others need "
        "`--trust-pickle`), or `any`",
    )
    modelscan: str | None = Field(
        None, description="the command of a modelscan in an environment of its own, for one more opinion on pickles"
    )


class SecuritySettings(_Section):
    trusted_keys: tuple[Path, ...] = Field(
        (), description="PEM files with the public keys, or the authorities' certificates, whose signatures count"
    )
    require_signature: tuple[Literal["staging", "production"], ...] = Field(
        (), description="environments in which only signed versions are deployed and served"
    )


class AccessSettings(_Section):
    """Access by token; `modelyard token init` turns it on."""

    open: bool = Field(
        False,
        description="whether the gateway and the API may listen beyond this machine while access is off, because "
        "something of yours before them checks who asks",
    )
    signing_key: SecretStr | None = Field(
        None, description="the key that signs tokens, Ed25519 in PEM; set it by its variable, or use a file"
    )
    signing_key_file: Path | None = Field(
        None, description="the file with that key; unset: one for each store in `~/.config/modelyard/keys`"
    )
    oidc_issuer: str | None = Field(None, description="an OpenID Connect issuer whose tokens are taken too")
    oidc_jwks_uri: str | None = Field(
        None, pattern=r"^https?://[^/@]+/.*$", description="where the issuer publishes its keys"
    )
    oidc_audience: tuple[str, ...] = Field((), description="audiences, one of which the issuer's tokens must name")
    oidc_roles: dict[str, Role] = Field(
        default_factory=dict,
        description='which role a value of the role claim gives: `{"ml-team": "deployer", "staff": "caller"}`',
    )
    oidc_role_claim: str = Field(
        "roles", min_length=1, description="the claim with the roles or groups; `realm_access.roles` for nested ones"
    )
    oidc_models_claim: str | None = Field(
        None, min_length=1, description="the claim with the models that a token is good for; unset: all"
    )
    oidc_ca_file: Path | None = Field(
        None, description="the certificates that the issuer's own must descend from; unset: the public ones"
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.oidc_issuer and not (self.oidc_jwks_uri and self.oidc_audience and self.oidc_roles):
            raise ValueError("oidc_issuer needs oidc_jwks_uri, oidc_audience and oidc_roles, too")
        return self


class Settings(BaseSettings):
    """All settings. Build it with `load_settings`; it can't be changed afterwards."""

    model_config = SettingsConfigDict(
        env_prefix="MODELYARD_", env_nested_delimiter="__", frozen=True, extra="forbid", toml_file=None
    )

    env: Environment = Field(
        "development",
        description="`development` or `production`: which engine language models run on here, and which one "
        "`InferenceGateway` asks",
    )
    store: str | None = Field(
        None,
        description="where everything shared is kept: `s3://bucket/prefix`, `gs://…`, `az://…` or a folder; "
        "unset: the nearest `.modelyard` upward, else the one in the home folder",
    )
    s3_endpoint_url: str | None = Field(None, description="the address of an S3 server that is not AWS")
    cache: Path = Field(
        default_factory=lambda: Path.home() / ".cache" / "modelyard",
        description="verified files of models on this machine, shared by all stores; may be deleted when nothing runs",
    )
    cache_limit: Annotated[Annotated[ByteSize, Ge(0)] | None, BeforeValidator(_size)] = Field(
        ByteSize(50 * 1024**3),
        description="how large the cache may grow, such as `200 GiB`; what was used longest ago goes first, nothing "
        "that is in use; `0` or `none`: without limit",
    )
    state: Path = Field(
        default_factory=lambda: Path.home() / ".local" / "state" / "modelyard",
        description="what runs on this machine: records, logs, the gateway's files; a folder for each store",
    )
    user: str = Field(
        default_factory=lambda: f"{getpass.getuser()}@{socket.gethostname()}",
        description="who the journals say made a change",
    )
    token: Annotated[SecretStr, AfterValidator(_one_word)] | None = Field(
        None, description="the token that this machine's commands send to the gateway, where access is on"
    )
    storage: StorageSettings = StorageSettings()
    gateway: GatewaySettings = GatewaySettings()
    api: ApiSettings = ApiSettings()
    serving: ServingSettings = ServingSettings()
    engines: EngineSettings = EngineSettings()
    deployment: DeploymentSettings = DeploymentSettings()
    kubernetes: KubernetesSettings = KubernetesSettings()
    scan: ScanSettings = ScanSettings()
    security: SecuritySettings = SecuritySettings()
    access: AccessSettings = AccessSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def load_settings(folder: Path | None = None, **overrides: Any) -> Settings:
    """Settings from `modelyard.toml` in `folder` (or the nearest above it), variables, then overrides.

    Raises SettingsError, in one line, for a file that can't be read and for every value that is not understood.
    """
    start = (folder or Path.cwd()).resolve()
    path = next((p / FILE_NAME for p in (start, *start.parents) if (p / FILE_NAME).exists()), None)
    if path and path.is_dir():
        raise SettingsError(f"{path} can't be read: it is a folder", remedy="rename it")
    sources = type("FileSettings", (Settings,), {"model_config": {**Settings.model_config, "toml_file": path}})
    try:
        loaded: Settings = sources(**overrides)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is not valid TOML: {error}", remedy="mend the file") from error
    except OSError as error:
        raise SettingsError(f"{path} can't be read: {error.strerror}", remedy="mend its permissions") from error
    except ValidationError as error:
        raise _refusal(error, path) from error
    except (SourceError, UnicodeDecodeError) as error:
        what = f"{path or 'the environment'} can't be read: {error}".splitlines()[0]
        raise SettingsError(what, remedy="mend the value") from error
    return loaded


def _refusal(error: ValidationError, path: Path | None) -> SettingsError:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    variable = f"MODELYARD_{key.upper().replace('.', '__')}"
    origin = variable if variable in os.environ else str(path or "the settings")
    if first["type"] == "extra_forbidden":
        *section, wrong = map(str, first["loc"])
        known = fields(Settings.model_json_schema(), section)
        close = difflib.get_close_matches(wrong, known, 1)
        return SettingsError(
            f"setting {key!r} from {origin}: {'.'.join(section) or 'there'} {'has' if section else 'is'} no {wrong!r}",
            remedy=f"did you mean {close[0]}?" if close else f"use one of {', '.join(known)}",
        )
    found = first.get("input")
    secret = key in _SECRET or isinstance(found, (dict, list))  # or may be one
    shown = "" if secret else f" (found {found!r})"
    return SettingsError(f"setting {key!r} from {origin}: {phrase(first)}{shown}", remedy="mend the value")


def get_env() -> Environment:
    """`development` or `production`, from MODELYARD_ENV or modelyard.toml."""
    return load_settings().env
