"""TensorFlow Serving's REST guide, section by section, with plain `requests`: what it shows of half_plus_two and
half_plus_three, with pictures for numbers."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from app.contract.bundle import Bundle, open_bundle
from tests.end_to_end.draining import DrainingService

LABELS = [str(digit) for digit in range(10)]


@pytest.fixture(scope="module")
def bundle(trained_store: Path) -> Bundle:
    return open_bundle(trained_store / "digits" / "1")


@pytest.fixture(scope="module")
def server(trained_store: Path) -> Iterator[str]:
    service = DrainingService(trained_store)
    try:
        yield f"{service.url}/v1/models/digits"
    finally:
        assert service.stop() == 0


@pytest.fixture(scope="module")
def pixels(bundle: Bundle) -> Any:
    """Three pictures in the network's own shape, as nested lists."""
    return bundle.golden.images[:3].tolist()


@pytest.fixture(scope="module")
def encoded(bundle: Bundle) -> list[dict[str, str]]:
    """The same three pictures as {"b64": …}."""
    return [{"b64": base64.b64encode(picture).decode()} for picture in bundle.golden.encoded[:3]]


@pytest.fixture(scope="module")
def probabilities(bundle: Bundle) -> Any:
    return pytest.approx(bundle.golden.probabilities[:3], abs=1e-4)


def post(url: str, body: Any) -> requests.Response:
    return requests.post(url, data=json.dumps(body), timeout=60)


# "Model status API"


@pytest.mark.parametrize("version", ["", "/versions/1"])
def test_model_status(server: str, version: str) -> None:
    response = requests.get(server + version, timeout=60)
    assert response.json() == {
        "model_version_status": [
            {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        ]
    }


# "Model Metadata API"


@pytest.mark.parametrize("version", ["", "/versions/1"])
def test_model_metadata(server: str, bundle: Bundle, version: str) -> None:
    found = requests.get(f"{server}{version}/metadata", timeout=60).json()
    assert found["model_spec"] == {"name": "digits", "signature_name": "", "version": "1"}
    (name, signature) = found["metadata"]["signature_def"]["signature_def"].popitem()
    assert (name, signature["method_name"]) == ("serving_default", "tensorflow/serving/predict")
    dimensions = [dimension["size"] for dimension in signature["inputs"]["image"]["tensor_shape"]["dim"]]
    assert dimensions == ["-1", *map(str, bundle.manifest.preprocessing.shape)]
    assert signature["inputs"]["image"]["dtype"] == "DT_UINT8"
    assert signature["outputs"]["probabilities"]["dtype"] == "DT_FLOAT"


# "Classify and Regress API"


@pytest.mark.parametrize("feature", ["image", "image_bytes", "image/encoded"])
def test_classify_gives_label_and_score_pairs_for_each_example(
    server: str, encoded: list[dict[str, str]], probabilities: Any, feature: str
) -> None:
    examples = [{feature: picture} for picture in encoded]
    results = post(f"{server}:classify", {"signature_name": "serving_default", "examples": examples}).json()["results"]
    assert [[label for label, _ in row] for row in results] == [LABELS] * 3
    assert np.array([[score for _, score in row] for row in results]) == probabilities


def test_a_feature_may_be_a_list_and_may_be_shared_as_context(server: str, encoded: list[dict[str, str]]) -> None:
    alone = post(f"{server}:classify", {"examples": [{"image": [encoded[0]]}]}).json()
    shared = post(f"{server}:classify", {"context": {"image": encoded[0]}, "examples": [{}]}).json()
    assert shared == alone
    assert "results" in alone


def test_features_of_the_context_must_not_appear_in_examples(server: str, encoded: list[dict[str, str]]) -> None:
    answer = post(f"{server}:classify", {"context": {"image": encoded[0]}, "examples": [{"image": encoded[1]}]})
    assert (answer.status_code, "in 'context', too" in answer.json()["error"]) == (400, True)


def test_regress_is_refused_for_a_classifier(server: str, encoded: list[dict[str, str]]) -> None:
    answer = post(f"{server}:regress", {"examples": [{"image": encoded[0]}]})
    assert (answer.status_code, "classifier" in answer.json()["error"]) == (400, True)


# "Predict API"


@pytest.mark.parametrize("version", ["", "/versions/1"])
@pytest.mark.parametrize("signature", [{}, {"signature_name": "serving_default"}, {"signature_name": ""}])
def test_predict_in_row_format(
    server: str, pixels: Any, probabilities: Any, version: str, signature: dict[str, str]
) -> None:
    answer = post(f"{server}{version}:predict", {**signature, "instances": pixels}).json()
    assert list(answer) == ["predictions"]
    assert np.array(answer["predictions"]) == probabilities


def test_a_named_input_in_row_format(server: str, pixels: Any, probabilities: Any) -> None:
    answer = post(f"{server}:predict", {"instances": [{"image": picture} for picture in pixels]}).json()
    assert np.array(answer["predictions"]) == probabilities


@pytest.mark.parametrize("named", [False, True])
def test_predict_in_column_format(server: str, pixels: Any, probabilities: Any, named: bool) -> None:
    answer = post(f"{server}:predict", {"inputs": {"image": pixels} if named else pixels}).json()
    assert list(answer) == ["outputs"]
    assert np.array(answer["outputs"]) == probabilities


def test_not_both_formats_at_once(server: str, pixels: Any) -> None:
    for body in ({"instances": pixels, "inputs": pixels}, {}):
        answer = post(f"{server}:predict", body)
        assert (answer.status_code, "either as 'instances'" in answer.json()["error"]) == (400, True)


# "JSON mapping" and "Encoding binary values"


@pytest.mark.parametrize("name", [None, "image", "image_bytes"])
def test_binary_values_are_base64_under_the_key_b64(
    server: str, encoded: list[dict[str, str]], probabilities: Any, name: str | None
) -> None:
    instances = [{name: picture} if name else picture for picture in encoded]
    assert np.array(post(f"{server}:predict", {"instances": instances}).json()["predictions"]) == probabilities
    inputs: Any = {name: encoded} if name else encoded
    assert np.array(post(f"{server}:predict", {"inputs": inputs}).json()["outputs"]) == probabilities


# "Example": start the server, make REST calls, and the error of a request that does not fit


def test_a_request_that_does_not_fit_says_so_in_error(server: str) -> None:
    answer = post(f"{server}:predict", {"instances": [1.0, 2.0, 5.0]})
    assert answer.status_code == 400
    assert "shape []" in answer.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "s/cats", 404, "no model"),
        ("GET", "/versions/2", 404, "not live"),
        ("GET", "/versions/two/metadata", 404, "not live"),
        ("POST", "s/cats:predict", 404, "no model"),
        ("POST", "/versions/2:classify", 404, "not live"),
        ("POST", "/labels/stable:predict", 404, "label"),
        ("GET", "/labels/stable", 404, "label"),
        ("GET", "/labels/stable/metadata", 404, "label"),
        ("GET", ":predict", 405, "method"),
        ("POST", ":explain", 405, "method"),
    ],
)
def test_what_is_not_there_says_so_in_error(server: str, method: str, path: str, status: int, words: str) -> None:
    url = server.removesuffix("/digits") + "/cats" + path[6:] if path.startswith("s/cats") else server + path
    answer = requests.request(method, url, data="{}", timeout=60)
    assert answer.status_code == status
    assert words in answer.json()["error"]
