"""Say whether OpenTelemetry's own variables ask for traces, and of which requests.

What else they say, of the collector, of the queue before it and of the resource, OpenTelemetry's packages read
themselves.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from app.errors import InvalidSetting
from app.system.invocation import installs
from app.tracing.trace import Sampling

if TYPE_CHECKING:
    from app.tracing.otlp import Exporter

_SHARE_OF: Mapping[str, float | None] = {"always_on": 1.0, "always_off": 0.0, "traceidratio": None}
"""The sampled share of each OTEL_TRACES_SAMPLER; None if OTEL_TRACES_SAMPLER_ARG says it."""
_FOLLOWING = "parentbased_"
_SAMPLERS = [*_SHARE_OF, *(_FOLLOWING + name for name in _SHARE_OF)]


def is_asked_for(environment: Mapping[str, str]) -> bool:
    """Say whether OTEL_* variables ask for traces.

    Raises InvalidSetting for values that this service does not support.
    """
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "")
    if exporter not in ("", "none", "otlp"):
        raise InvalidSetting(f"OTEL_TRACES_EXPORTER is {exporter!r}; allowed: otlp | none.")
    if exporter == "none" or not (
        exporter
        or environment.get("OTEL_EXPORTER_OTLP_ENDPOINT")
        or environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    ):
        return False
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        protocol = environment.get(name)
        if protocol and protocol != "http/protobuf":
            raise InvalidSetting(
                f"{name} is {protocol!r}, but traces can only be sent as http/protobuf. "
                "Set it to that, and name the collector's port for HTTP, 4318, in the endpoint."
            )
        if protocol:
            break
    return True


def sampling_of(environment: Mapping[str, str]) -> Sampling:
    """Return which requests are traced. Raises InvalidSetting."""
    sampler = environment.get("OTEL_TRACES_SAMPLER") or "parentbased_always_on"
    if sampler not in _SAMPLERS:
        raise InvalidSetting(f"OTEL_TRACES_SAMPLER is {sampler!r}; allowed: {' | '.join(_SAMPLERS)}.")
    share = _SHARE_OF[sampler.removeprefix(_FOLLOWING)]
    if share is None:
        given = environment.get("OTEL_TRACES_SAMPLER_ARG") or "1"
        try:
            share = float(given)
        except ValueError:
            share = -1.0
        if not 0 <= share <= 1:
            raise InvalidSetting(f"OTEL_TRACES_SAMPLER_ARG is {given!r}; allowed: 0 to 1.")
    return Sampling(sampler.startswith(_FOLLOWING), share)


def check_tracing(environment: Mapping[str, str]) -> None:
    """Check that requested traces can be sent, by importing the exporter. Raises InvalidSetting."""
    if is_asked_for(environment):
        sampling_of(environment)
        try:
            import app.tracing.otlp  # noqa: F401
        except ModuleNotFoundError:
            raise InvalidSetting(
                "OTEL_* variables ask for traces, but OpenTelemetry's exporter is not installed: "
                f"{installs('tracing')}, or set OTEL_SDK_DISABLED=true."
            ) from None


def open_exporter(environment: Mapping[str, str], *, version: str) -> "Exporter | None":
    """Return the exporter of a process that does not fork any more; None if no traces are asked for.

    Raises InvalidSetting.
    """
    check_tracing(environment)
    if not is_asked_for(environment):
        return None
    from app.tracing.otlp import Exporter

    return Exporter(sampling_of(environment), version)
