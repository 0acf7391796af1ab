"""What holds on every path: the one error shape, health, the models, and a true OpenAPI document."""

import shutil
from pathlib import Path

import httpx
import pytest

from app.api.errors import STATUS, status_of
from app.api.openapi.schemas import ErrorBody, Health, ModelDetail, ModelList
from app.contract.bundle import open_bundle
from app.errors import (
    BundleError,
    EngineUnavailable,
    ImageclassError,
    ImageError,
    InvalidSetting,
    RequestError,
    ServiceError,
    ServingError,
)
from tests.api.conftest import OpenClient


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/no/such/path", 404, "not_found"),
        ("GET", "/predict", 405, "method_not_allowed"),
        ("DELETE", "/health", 405, "method_not_allowed"),
        ("GET", "/models/cats", 404, "model_not_found"),
        ("POST", "/predict", 415, "unsupported_media_type"),
    ],
)
async def test_every_error_has_the_one_shape(
    client: httpx.AsyncClient, method: str, path: str, status: int, code: str
) -> None:
    response = await client.request(method, path)
    body = ErrorBody.model_validate(response.json())
    assert (response.status_code, body.code) == (status, code)
    assert response.headers["x-request-id"] == body.request_id


async def test_the_callers_request_id_comes_back_unless_it_is_no_sensible_one(client: httpx.AsyncClient) -> None:
    async def returned(sent: str) -> str:
        return str((await client.get("/nothing", headers={"x-request-id": sent})).json()["request_id"])

    assert await returned("order-42") == "order-42"
    assert await returned("x" * 1000) != "x" * 1000
    assert await returned("") != ""


def leaves(kind: type[ImageclassError]) -> list[type[ImageclassError]]:
    below = kind.__subclasses__()
    return [leaf for child in below for leaf in leaves(child)] if below else [kind]


def test_every_error_that_a_request_can_meet_has_its_status_in_the_table() -> None:
    met = [leaf for family in (ImageError, RequestError, ServingError) for leaf in leaves(family)]
    assert set(met) == set(STATUS)
    assert all(status_of(kind("…")) == STATUS[kind] for kind in met)


def test_errors_that_no_request_should_meet_are_500() -> None:
    assert {status_of(kind("…")) for kind in (BundleError, EngineUnavailable, InvalidSetting, ServiceError)} == {500}


@pytest.mark.parametrize("path", ["/health", "/health/ready"])
async def test_health_says_what_is_served_on_which_engine(client: httpx.AsyncClient, path: str) -> None:
    response = await client.get(path)
    assert response.status_code == 200
    (model,) = Health.model_validate(response.json()).models
    assert (model.name, model.version, model.engine) == ("digits", 1, "openvino")
    assert model.age_seconds >= 0


async def test_live_answers_without_a_look_at_the_models(client: httpx.AsyncClient) -> None:
    assert (await client.get("/health/live")).json() == {"status": "live"}


async def test_models_tell_their_labels_metrics_preprocessing_and_card(
    client: httpx.AsyncClient, trained_store: Path
) -> None:
    bundle = open_bundle(trained_store / "digits" / "1")
    (summary,) = ModelList.model_validate((await client.get("/models")).json()).models
    detail = ModelDetail.model_validate((await client.get("/models/digits")).json())
    assert tuple(summary.labels) == tuple(detail.labels) == bundle.manifest.labels
    assert summary.metrics == bundle.manifest.metrics
    assert detail.preprocessing == bundle.manifest.preprocessing
    assert detail.card == bundle.card()


async def test_a_model_tells_how_it_is_run_and_why(open_client: OpenClient) -> None:
    client = await open_client(inference_threads=2, max_batch_size=4, inference_place="thread", inline_decode_pixels=77)
    serving = ModelDetail.model_validate((await client.get("/models/digits")).json()).serving
    assert (serving.engine, serving.engine_reason) == ("openvino", "set to openvino")
    assert (serving.precision, serving.precision_reason) == ("f32", "set to f32")
    assert serving.threads == 2
    assert list(serving.batch_milliseconds) in (["1"], ["1", "4"])  # as it was measured
    assert all(taken > 0 for taken in serving.batch_milliseconds.values())
    assert (serving.inference, serving.inline_decode_pixels) == ("thread", 77)


async def test_nothing_about_the_host_is_in_any_answer(
    copy_of_store: Path, open_client: OpenClient, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(copy_of_store / "digits" / "1", copy_of_store / "digits" / "2")  # and of one that is refused
    client = await open_client(model_store=copy_of_store)
    paths = ["/health", "/models", "/models/digits", "/metrics", "/docs", "/openapi.json", "/nothing", "/predict"]
    answers = [await client.get(path) for path in paths]
    monkeypatch.setattr("app.api.routes.models._summary", lambda _: (copy_of_store / "no such file").read_text())
    answers.append(await client.get("/models"))
    assert answers[-1].status_code == 500
    for answer in answers:
        for secret in (str(copy_of_store), str(repository), str(Path.home()), "Traceback", "site-packages", ".py"):
            assert secret not in answer.text
        for header in ("server", "x-powered-by", "via"):
            assert header not in answer.headers


async def test_a_newer_version_that_fails_its_check_is_refused_and_the_older_one_serves(
    copy_of_store: Path, open_client: OpenClient
) -> None:
    shutil.copytree(copy_of_store / "digits" / "1", copy_of_store / "digits" / "2")
    client = await open_client(model_store=copy_of_store)
    health = (await client.get("/health")).json()
    assert [model["version"] for model in health["models"]] == [1]
    assert health["refused"] == [{"name": "digits", "version": 2, "code": "bundle_tampered"}]


async def test_openapi_declares_every_status_and_no_other_error_shape(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    declared = {
        (path, method): set(operation["responses"])
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    anywhere = {"200", "400", "408", "431", "500"}
    guarded = {*anywhere, "401"}
    assert declared == {
        ("/predict", "post"): {*guarded, "404", "413", "415", "422", "503", "504"},
        ("/predict/batch", "post"): {*guarded, "404", "413", "415", "503", "504"},
        ("/explain", "post"): {*guarded, "403", "404", "413", "415", "422", "503", "504"},
        ("/health", "get"): {*anywhere, "503"},
        ("/health/ready", "get"): {*anywhere, "503"},
        ("/health/live", "get"): anywhere,
        ("/models", "get"): guarded,
        ("/models/{name}", "get"): {*guarded, "404"},
        ("/metrics", "get"): guarded,
        **{
            (f"/v1/models/{{model}}{version}{suffix}", method): {*guarded, *statuses}
            for version in ("", "/versions/{version}")
            for suffix, method, statuses in (
                ("", "get", {"404"}),
                ("/metadata", "get", {"404"}),
                (":predict", "post", {"404", "413", "415", "422", "503", "504"}),
                (":classify", "post", {"404", "413", "415", "422", "503", "504"}),
            )
        },
        ("/v2", "get"): guarded,
        ("/v2/models/stats", "get"): guarded,
        ("/v2/repository/index", "post"): {*guarded, "413", "415", "503"},
        ("/v2/repository/models/{model}/load", "post"): {*guarded, "403", "404", "413", "415", "503", "504"},
        ("/v2/repository/models/{model}/unload", "post"): {*guarded, "403", "404", "413", "415", "503", "504"},
        ("/v2/health/live", "get"): anywhere,
        ("/v2/health/ready", "get"): {*anywhere, "503"},
        **{
            (f"/v2/models/{{model}}{version}{suffix}", method): {*guarded, *statuses}
            for version in ("", "/versions/{version}")
            for suffix, method, statuses in (
                ("", "get", {"404"}),
                ("/ready", "get", {"404", "503"}),
                ("/config", "get", {"404"}),
                ("/stats", "get", {"404"}),
                ("/infer", "post", {"404", "413", "415", "422", "503", "504"}),
            )
        },
    }
    assert "HTTPValidationError" not in str(document)
    for operations in document["paths"].values():
        for operation in operations.values():
            for status, answer in operation["responses"].items():
                assert "X-Request-ID" in answer["headers"]
                assert ("Retry-After" in answer["headers"]) == (status == "503")
                if int(status) >= 400:
                    schema = answer["content"]["application/json"]["schema"]
                    assert schema == {"$ref": "#/components/schemas/ErrorBody"}


async def test_openapi_documents_the_upload_as_form_and_as_raw_body(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    content = document["paths"]["/predict"]["post"]["requestBody"]["content"]
    assert set(content) == {"multipart/form-data", "image/*", "application/octet-stream"}


async def test_the_documentation_page_is_there(client: httpx.AsyncClient) -> None:
    assert (await client.get("/docs")).status_code == 200
