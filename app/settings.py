"""The service's settings: one environment variable each, with the prefix IMAGECLASS_.

None is about the content of pictures: that is in the preprocessing spec of the bundle.
"""

import difflib
import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from app.contract.limits import MAX_BYTES, MAX_PIXELS
from app.contract.location import Location, parse_location
from app.engines.registry import EngineChoice
from app.errors import InvalidSetting
from app.system.home import expanded

ENV_PREFIX = "IMAGECLASS_"
API_KEY_VARIABLE = ENV_PREFIX + "API_KEY"
"""Not one of the service's: `python -m app predict --url` sends it."""

_SERVICE_LINK = re.compile(
    ENV_PREFIX + r"(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
"""Names that Kubernetes sets in every pod for a Service called imageclass, or imageclass-grpc."""
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://.+")
"""What Kubernetes writes into IMAGECLASS_PORT for such a Service."""


class _Environment(EnvSettingsSource):
    """The environment, without the addresses that Kubernetes writes into port variables."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        value, key, is_complex = super().get_field_value(field, field_name)
        return (None if _is_service_address(env_name(field_name), value) else value), key, is_complex


class Settings(BaseSettings):
    """Frozen; built once by the command line, and handed to every worker process."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for every network interface.")
    port: int = Field(8000, ge=0, le=65535, description="TCP port to listen on; 0 takes any free port.")
    grpc_port: int = Field(
        0, ge=0, le=65535, description="TCP port for the Open Inference Protocol over gRPC; 0 for none."
    )
    workers: int = Field(
        0,
        ge=0,
        le=256,
        description="Worker processes, each with its own models; 0 starts one for each core, at most 4.",
    )
    model_store: Annotated[Location, BeforeValidator(parse_location, json_schema_input_type=str)] = Field(
        Path("model_store"),
        description="Folder of bundles, <name>/<version>/, or a bucket: s3://, gs:// or az://BUCKET/PREFIX; with "
        "@sha256:DIGEST, serve only the version whose manifest has that digest.",
    )
    model_cache: Path | None = Field(
        None, description="Folder for versions pulled from a bucket; if unset, ~/.cache/imageclass/models."
    )
    model_cache_bytes: int = Field(
        10 * 1024**3,
        ge=1,
        le=1 << 50,
        description=(
            "Size limit of that folder in bytes; the oldest versions are deleted first, served versions never."
        ),
    )
    model: str | None = Field(
        None, description="Model for requests that name none; needed if the store holds several models."
    )
    min_probability: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Mark answers below this probability as unsure; if unset, the bundle's own minimum applies.",
    )
    false_alarms: float | None = Field(
        None,
        gt=0,
        le=0.5,
        description="Mark unfamiliar pictures, at this false-alarm rate; if unset, the bundle's own rate applies.",
    )
    engine: EngineChoice = Field(
        "auto", description="Inference engine; auto takes the fastest one that passes the golden check."
    )
    precision: Literal["f32", "auto"] = Field(
        "f32", description="auto uses bf16 if the CPU supports it and no label of the model's golden pictures changes."
    )
    inference_threads: int = Field(
        0, ge=0, le=1024, description="Cores for one inference; 0 divides the available cores among the workers."
    )
    inference_place: Literal["auto", "loop", "thread"] = Field(
        "auto", description="Where batches run; auto uses the event loop if the model is fast enough, else a thread."
    )
    max_batch_size: int = Field(
        64, ge=1, le=1024, description="Largest batch; a smaller one is chosen if it is as fast."
    )
    inline_decode_pixels: int | None = Field(
        None,
        ge=0,
        le=1 << 30,
        description="Decode pictures of up to this many pixels on the event loop; if unset, the limit is measured.",
    )
    max_pending: int = Field(
        512,
        ge=1,
        le=1_000_000,
        description="Most pictures in flight in a worker; above it, requests are rejected with 503.",
    )
    max_pending_bytes: int = Field(
        256 * 1024 * 1024,
        ge=1,
        le=1 << 40,
        description=(
            "Most bytes of uploads and decoded pictures in a worker; above it, requests are rejected with 503."
        ),
    )
    max_explanations: int = Field(
        4,
        ge=0,
        le=10_000,
        description="Most concurrent requests to /explain in a worker; 0 rejects all with 403.",
    )
    request_timeout_s: float = Field(
        10.0,
        gt=0,
        le=3600,
        description="Seconds from receiving a request to answering it, else 504; X-Request-Timeout may ask for less.",
    )
    inference_timeout_s: float = Field(
        2.0,
        gt=0,
        le=3600,
        description="Seconds after which a batch counts as hung; its pictures are then run one by one.",
    )
    max_upload_bytes: int = Field(
        MAX_BYTES, ge=1, le=1 << 31, description="Largest picture accepted, in bytes as uploaded."
    )
    accepted_formats: str = Field(
        "jpeg,png,webp,bmp,gif,tiff,avif,heic",
        pattern=r"^(jpeg|png|webp|bmp|gif|tiff|avif|heic)(,(jpeg|png|webp|bmp|gif|tiff|avif|heic))*$",
        json_schema_extra={"allowed": "some of jpeg,png,webp,bmp,gif,tiff,avif,heic"},
        description="Accepted picture formats, comma-separated; others are rejected with 415.",
    )
    max_pixels: int = Field(
        MAX_PIXELS, ge=1, le=1 << 30, description="Largest picture accepted, in pixels; checked before decoding."
    )
    max_batch_pictures: int = Field(64, ge=1, le=10_000, description="Most pictures in one request.")
    max_batch_bytes: int = Field(
        64 * 1024 * 1024,
        ge=1,
        le=1 << 31,
        description="Largest body of a request that may hold many pictures, in bytes.",
    )
    max_json_values: int = Field(
        1_000_000,
        ge=1,
        le=100_000_000,
        description="Most values in the JSON of one request; more are rejected with 413.",
    )
    max_form_fields: int = Field(
        100,
        ge=0,
        le=10_000,
        description="Most fields of a form in addition to its pictures; more are rejected with 400.",
    )
    max_header_bytes: int = Field(
        16 * 1024,
        ge=256,
        le=1 << 20,
        description="Longest request line and headers together, in bytes; longer ones are rejected with 431.",
    )
    max_connections: int = Field(
        2048, ge=1, le=1_000_000, description="Most open connections of a worker; further ones wait to be accepted."
    )
    receive_timeout_s: float = Field(
        60.0, gt=0, le=3600, description="Seconds within which a request must arrive, from its first byte to its last."
    )
    keep_alive_s: int = Field(75, ge=0, le=3600, description="Seconds for which an idle connection is kept open.")
    worker_hung_after_s: float = Field(
        30.0, ge=1, le=3600, description="Seconds without a heartbeat after which a worker is replaced."
    )
    shutdown_delay_s: float = Field(
        0.0,
        ge=0,
        le=3600,
        description="Seconds after SIGTERM during which requests are still accepted, while readiness already fails.",
    )
    shutdown_grace_s: int = Field(
        20, ge=0, le=3600, description="Seconds that accepted requests have to finish after SIGTERM."
    )
    reload_interval_s: float = Field(
        0.5,
        ge=0,
        le=3600,
        description="Seconds between scans of the model store for new, pinned or removed versions; 0 disables them.",
    )
    model_control: bool = Field(
        False, description="Allow clients to load and unload models by the Open Inference Protocol's repository calls."
    )
    api_keys: SecretStr | None = Field(
        None, description="API keys, comma-separated; each request must carry one. If unset, no key is needed."
    )
    api_keys_file: Path | None = Field(None, description="File of API keys, one a line; read again if it changes.")
    metrics_access: Literal["open", "key", "off"] = Field(
        "open", description="Who may read /metrics: anyone, holders of an API key, or nobody."
    )
    docs_access: Literal["open", "key", "off"] = Field(
        "open", description="Who may read /docs and /openapi.json: anyone, holders of an API key, or nobody."
    )
    page_access: Literal["open", "key", "off"] = Field(
        "open", description="Who may read the page at /: anyone, holders of an API key, or nobody."
    )
    page_samples: bool = Field(
        False,
        description="Show the golden pictures of the bundles, which are test pictures, as samples on that page, to "
        "everyone who may use the models; make run turns it on.",
    )
    allowed_hosts: str | None = Field(
        None, description="Accepted host names, comma-separated; *.example.com matches all subdomains. If unset, any."
    )
    cors_origins: str | None = Field(
        None,
        description="Origins whose pages may call the service from a browser, comma-separated; * for any. If "
        "unset, none.",
    )
    access_log: bool = Field(False, description="Log one line for each request.")
    log_format: Literal["auto", "text", "json"] = Field(
        "auto", description="Log format; auto writes text to a terminal and JSON, one object per line, elsewhere."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Lowest severity that is logged."
    )

    @field_validator("*")
    @classmethod
    def _in_home(cls, value: Any) -> Any:
        return expanded(value) if isinstance(value, Path) else value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the environment as `_Environment` does, and neither files of secrets nor .env files."""
        return init_settings, _Environment(settings_cls)

    @classmethod
    def load(cls, **given: Any) -> "Settings":
        """Return the settings of the environment, with `given` before them. Raises InvalidSetting, naming each."""
        try:
            return cls(**given)
        except ValidationError as exc:
            raise InvalidSetting("; ".join(_sentence(error) for error in exc.errors())) from exc


def is_secret(field: str) -> bool:
    """Say whether a setting is secret: it is not an option of a command, because other users can read command lines."""
    return Settings.model_fields[field].annotation == SecretStr | None


def env_name(field: str) -> str:
    return ENV_PREFIX + field.upper()


def allowed_range(field: str) -> str:
    """Return the values that a setting may have, in words, from its own declaration; empty if it may have any."""
    schema = _schemas()[field]
    # if the setting may be unset, the first alternative declares its other values
    schema = {**schema, **schema.get("anyOf", [{}])[0]}
    if "allowed" in schema:
        return str(schema["allowed"])
    if schema.get("type") == "boolean":
        return "true | false"
    if "enum" in schema:
        return " | ".join(schema["enum"])
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    if low is None:
        return ""
    above = "above " if "exclusiveMinimum" in schema else ""
    return f"{above}{low} to {schema['maximum']}"


@cache
def _schemas() -> dict[str, dict[str, Any]]:
    """Return the JSON schema of each setting. It takes as long to make for one as for all."""
    schemas: dict[str, dict[str, Any]] = Settings.model_json_schema()["properties"]
    return schemas


def ignored_variables(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return a sentence for each IMAGECLASS_ variable that is no setting, and one for all that Kubernetes has set.

    They are no error. Those of Kubernetes are named only if they take the place of a setting.
    """
    known = [*map(env_name, Settings.model_fields), API_KEY_VARIABLE]
    links = [f"{name}={value}" for name, value in sorted(environment.items()) if _is_service_address(name, value)]
    sentences = []
    if taken := [link for link in links if link.partition("=")[0] in known]:
        sentences.append(
            f"Kubernetes set {' and '.join(taken)} for a Service of that name. No port to listen on, so it is "
            "ignored. To avoid such variables, set enableServiceLinks: false in the pod's spec."
        )
    for name in sorted(environment):
        injected = _SERVICE_LINK.fullmatch(name) or _is_service_address(name, environment[name])
        if name.startswith(ENV_PREFIX) and name not in known and not injected:
            close = difflib.get_close_matches(name, known, n=1)
            sentences.append(f"{name} is not a setting" + (f"; did you mean {close[0]}?" if close else "."))
    return sentences


def _is_service_address(name: str, value: str | None) -> bool:
    """Say whether a variable is the address that Kubernetes sets for a Service, as IMAGECLASS_PORT=tcp://10.96.0.7:8000."""
    return name.startswith(ENV_PREFIX) and name.endswith("PORT") and bool(_SERVICE_ADDRESS.fullmatch(value or ""))


def _sentence(error: Any) -> str:
    field = str(error["loc"][0]) if error["loc"] else ""
    if field not in Settings.model_fields:
        return f"{field}: {error['msg']}."
    allowed = allowed_range(field)
    expected = f"allowed: {allowed}" if allowed else error["msg"]
    return f"{env_name(field)} is {error['input']!r}; {expected}."
