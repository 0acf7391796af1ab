"""The OpenAPI document is true: schemathesis sends what it allows, and what it does not, to the real service."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode, openapi
from schemathesis.specs.openapi import checks

from tests.end_to_end.draining import DrainingService

# Not among them: that every body which fits the schema is accepted. Most strings of bytes are no pictures.
CHECKS = [
    checks.allow_header_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.status_code_conformance,
    checks.unsupported_method,
]


@pytest.fixture(scope="module")
def document(trained_store: Path) -> Iterator[Any]:
    service = DrainingService(trained_store)
    try:
        yield openapi.from_url(f"{service.url}/openapi.json")
    finally:
        assert service.stop() == 0


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("post", "/predict"),
        ("post", "/predict/batch"),
        ("get", "/health"),
        ("get", "/health/ready"),
        ("get", "/health/live"),
        ("get", "/metrics"),
        ("get", "/models"),
        ("get", "/models/{name}"),
        ("get", "/v1/models/{model}"),
        ("get", "/v1/models/{model}/metadata"),
        ("post", "/v1/models/{model}:predict"),
        ("post", "/v1/models/{model}:classify"),
        ("get", "/v1/models/{model}/versions/{version}"),
        ("get", "/v1/models/{model}/versions/{version}/metadata"),
        ("post", "/v1/models/{model}/versions/{version}:predict"),
        ("post", "/v1/models/{model}/versions/{version}:classify"),
        ("get", "/v2"),
        ("get", "/v2/health/live"),
        ("get", "/v2/health/ready"),
        ("get", "/v2/models/stats"),
        ("post", "/v2/repository/index"),
        ("get", "/v2/models/{model}"),
        ("get", "/v2/models/{model}/ready"),
        ("get", "/v2/models/{model}/config"),
        ("get", "/v2/models/{model}/stats"),
        ("post", "/v2/models/{model}/infer"),
        ("get", "/v2/models/{model}/versions/{version}"),
        ("get", "/v2/models/{model}/versions/{version}/ready"),
        ("get", "/v2/models/{model}/versions/{version}/config"),
        ("get", "/v2/models/{model}/versions/{version}/stats"),
        ("post", "/v2/models/{model}/versions/{version}/infer"),
    ],
)
def test_every_answer_is_one_that_the_document_declares(document: Any, method: str, path: str) -> None:
    ask(document[path][method], GenerationMode.POSITIVE)


@pytest.mark.parametrize(
    "path", ["/predict", "/predict/batch", "/v1/models/{model}:predict", "/v2/models/{model}/infer"]
)
def test_what_the_document_does_not_allow_is_answered_as_it_declares(document: Any, path: str) -> None:
    ask(document[path]["post"], GenerationMode.NEGATIVE)


def ask(operation: Any, mode: GenerationMode) -> None:
    @given(operation.as_strategy(generation_mode=mode))
    @settings(max_examples=25, suppress_health_check=list(HealthCheck))
    def ask_one(case: Any) -> None:
        answer = case.call_and_validate(checks=CHECKS)
        assert answer.status_code < 500 or answer.status_code in {503, 504}

    ask_one()


def test_every_operation_of_the_document_is_asked(document: Any) -> None:
    found = {(operation.ok().method, operation.ok().path) for operation in document.get_all_operations()}
    (asked,) = (
        mark.args[1]
        for mark in test_every_answer_is_one_that_the_document_declares.pytestmark
        if mark.args[0] == ("method", "path")
    )
    assert found == set(asked)
