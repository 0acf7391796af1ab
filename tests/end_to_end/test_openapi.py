"""The OpenAPI document is true: schemathesis sends what it allows, and what it does not, to the real service."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
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
def url(trained_store: Path) -> Iterator[str]:
    service = DrainingService(trained_store)
    try:
        yield service.url
    finally:
        assert service.stop() == 0


@pytest.fixture(scope="module")
def document(url: str) -> Any:
    return openapi.from_url(f"{url}/openapi.json")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("post", "/predict"),
        ("post", "/predict/batch"),
        ("post", "/explain"),
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
        ("post", "/v2/repository/models/{model}/load"),
        ("post", "/v2/repository/models/{model}/unload"),
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
    "path", ["/predict", "/predict/batch", "/explain", "/v1/models/{model}:predict", "/v2/models/{model}/infer"]
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


def test_every_example_of_the_document_is_answered(url: str, data_folder: Path) -> None:
    seven = (data_folder / "7-00000.png").read_bytes()
    asked = 0
    for path, operations in httpx.get(f"{url}/openapi.json").json()["paths"].items():
        for method, operation in operations.items():
            given: dict[str, dict[str, Any]] = {parameter["in"]: {} for parameter in operation["parameters"]}
            for parameter in operation["parameters"]:
                shown = [*parameter["schema"].get("examples", []), *filter(None, [parameter.get("example")])]
                for example in shown[:1]:
                    given[parameter["in"]][parameter["name"]] = example
            assert all(name in given["path"] for name in re.findall(r"{(\w+)}", path)), path
            names = {parameter["name"] for parameter in operation["parameters"]}
            for body in bodies(operation.get("requestBody", {}).get("content", {}), names, seven):
                answer = httpx.request(
                    method,
                    url + path.format(**given.get("path", {})),
                    params=given.get("query", {}),
                    **{**body, "headers": {**given_headers(given), **body.get("headers", {})}},
                )
                assert answer.status_code == 200, (path, body, answer.text)
                assert answer.headers["x-request-id"] == "order-42"
                asked += 1
    assert asked > 20


def given_headers(given: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {name: str(value) for name, value in given.get("header", {}).items()}


def bodies(content: dict[str, Any], parameters: set[str], picture: bytes) -> Iterator[dict[str, Any]]:
    """Yield what is sent for each content type: the example, or a picture where none can be written down."""
    if not content:
        yield {}
    for media_type, body in content.items():
        schema = body["schema"]
        if media_type == "multipart/form-data":
            (field,) = schema["properties"]
            yield {"files": [(field, picture)]}
        elif media_type == "application/json":
            if "example" in schema:
                yield {"json": schema["example"]}
        else:
            no_json = (
                {"Inference-Header-Content-Length": "0"} if "Inference-Header-Content-Length" in parameters else {}
            )
            yield {"content": picture, "headers": {"content-type": media_type.replace("*", "png"), **no_json}}


@pytest.mark.slow
def test_a_client_generated_from_the_document_classifies_a_picture(
    url: str, client_python: Path, repository: Path, data_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "openapi.json").write_bytes(httpx.get(f"{url}/openapi.json").content)
    generator = str(client_python.parent / "openapi-python-client")
    made = subprocess.run(
        [generator, "generate", "--meta", "none", "--path", "openapi.json", "--output-path", "made_client"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    script = repository / "tests" / "clients" / "generated.py"
    asked = subprocess.run(
        [client_python, script, url, data_folder / "7-00000.png"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert asked.returncode == 0, asked.stderr
    found = json.loads(asked.stdout)
    assert set(found) == {"form", "body", "batch"}
    assert len({answer["label"] for answer in found.values()}) == 1
    assert found["form"]["model"] == {"name": "digits", "version": 1}
