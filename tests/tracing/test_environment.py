"""OTEL_* variables: what asks for traces, of which requests, and what is refused in a sentence."""

import logging
from collections.abc import Iterator

import pytest

from app.errors import InvalidSetting
from app.tracing.environment import check_tracing, is_asked_for, open_exporter, sampling_of

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}


@pytest.fixture(autouse=True)
def loggers_as_before() -> Iterator[None]:
    logger = logging.getLogger("opentelemetry")
    before = logger.handlers, logger.propagate
    yield
    logger.handlers, logger.propagate = before


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_SERVICE_NAME": "digits", "OTEL_TRACES_SAMPLER": "always_on"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:9"},
        {"OTEL_TRACES_EXPORTER": "none", **ENDPOINT},
        {"OTEL_SDK_DISABLED": "true", **ENDPOINT},
    ],
)
def test_nothing_else_asks_for_traces(environment: dict[str, str]) -> None:
    assert not is_asked_for(environment)
    assert open_exporter(environment, version="1") is None


@pytest.mark.parametrize(
    "environment",
    [
        ENDPOINT,
        {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:9/v1/traces"},
        {"OTEL_TRACES_EXPORTER": "otlp"},
        {"OTEL_SDK_DISABLED": "false", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", **ENDPOINT},
        {
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
            **ENDPOINT,
        },
    ],
)
def test_an_endpoint_or_the_exporter_asks_for_traces(environment: dict[str, str]) -> None:
    assert is_asked_for(environment)


@pytest.mark.parametrize(
    ("sampler", "argument", "expected"),
    [
        (None, None, (True, 1.0)),
        ("always_on", None, (False, 1.0)),
        ("always_off", None, (False, 0.0)),
        ("traceidratio", "0.01", (False, 0.01)),
        ("traceidratio", None, (False, 1.0)),
        ("parentbased_always_on", "0.5", (True, 1.0)),
        ("parentbased_always_off", None, (True, 0.0)),
        ("parentbased_traceidratio", "0.25", (True, 0.25)),
    ],
)
def test_the_standard_samplers_are_known(
    sampler: str | None, argument: str | None, expected: tuple[bool, float]
) -> None:
    given = {"OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": argument}
    assert sampling_of({name: value for name, value in given.items() if value is not None}) == expected


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin", "; allowed: otlp | none."),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", ", but traces can only be sent as http/protobuf. Set it to that, and "),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote", "; allowed: always_on | always_off | traceidratio | parentbased_"),
        ("OTEL_TRACES_SAMPLER_ARG", "1 %", "; allowed: 0 to 1."),
        ("OTEL_TRACES_SAMPLER_ARG", "nan", "; allowed: 0 to 1."),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_sentence(name: str, value: str, expected: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        check_tracing({**ENDPOINT, "OTEL_TRACES_SAMPLER": "traceidratio", name: value})
    assert str(caught.value).startswith(f"{name} is {value!r}{expected}")
