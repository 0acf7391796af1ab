"""What a request says is taken apart exactly, and whatever cannot be is told in a sentence."""

import base64
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.bodies.json import parse_json
from app.api.protocols.open_inference.requests import InferRequest, Reader, RequestedOutput
from app.api.protocols.open_inference.responses import output_tensor, to_body
from app.api.protocols.open_inference.tensors import bytes_to_binary, encoded_from_binary
from app.contract.bundle import Manifest, open_bundle
from app.errors import MalformedRequest, UploadTooLarge

TENSOR = np.arange(2 * 28 * 28, dtype=np.int64).reshape(2, 28, 28, 1) % 256
MOST = 16


@pytest.fixture(scope="module")
def manifest(trained_store: Path) -> Manifest:
    return open_bundle(trained_store / "digits" / "1").manifest


@pytest.fixture(scope="module")
def reader(manifest: Manifest) -> Reader:
    def check_count(pictures: int) -> None:
        if not 1 <= pictures <= MOST:
            raise MalformedRequest("Too many, or none.")

    return Reader(manifest, parse_json=lambda body: parse_json(body, max_values=10_000), check_count=check_count)


def message(**given: Any) -> dict[str, Any]:
    """An inference request with one UINT8 tensor, and whatever a test has otherwise."""
    tensor = {"name": "image", "datatype": "UINT8", "shape": [2, 28, 28, 1], "data": TENSOR.tolist()}
    own = {key: value for key, value in given.items() if key not in tensor}
    tensor.update({key: value for key, value in given.items() if key in tensor})
    return {"inputs": [tensor], **own}


def text(**given: Any) -> bytes:
    return json.dumps(message(**given)).encode()


def with_binary(binary: bytes, **given: Any) -> tuple[bytes, int]:
    sent = message(**given)
    sent["inputs"][0].update({"data": None, "parameters": {"binary_data_size": len(binary)}})
    head = json.dumps(sent).encode()
    return head + binary, len(head)


@pytest.mark.parametrize(
    "data",
    [TENSOR.tolist(), TENSOR.reshape(-1).tolist(), TENSOR.reshape(2, 784).tolist(), TENSOR[..., 0].tolist()],
    ids=["nested", "flat", "by picture", "without channels"],
)
def test_pixels_in_json_may_be_flat_or_nested(reader: Reader, data: Any) -> None:
    request = reader.from_body(text(data=data), None)
    assert isinstance(request.pictures, np.ndarray)
    assert request.pictures.dtype == np.uint8
    np.testing.assert_array_equal(request.pictures, TENSOR)


def test_pixels_may_follow_the_json_as_they_are(reader: Reader) -> None:
    request = reader.from_body(*with_binary(TENSOR.astype(np.uint8).tobytes()))
    np.testing.assert_array_equal(request.pictures, TENSOR)


@pytest.mark.parametrize("shape", [[3], [3, 1]])
def test_encoded_pictures_may_follow_the_json_or_stand_in_it_in_base64(reader: Reader, shape: list[int]) -> None:
    pictures = [b"one", b"", bytes(range(256))]
    as_binary = with_binary(bytes_to_binary(pictures), datatype="BYTES", shape=shape)
    assert reader.from_body(*as_binary).pictures == pictures
    in_json = [base64.b64encode(picture).decode() for picture in pictures]
    assert reader.from_body(text(datatype="BYTES", shape=shape, data=in_json), None).pictures == pictures
    nested = [[each] for each in in_json]
    assert reader.from_body(text(datatype="BYTES", shape=shape, data=nested), None).pictures == pictures


@given(st.lists(st.binary(max_size=50), max_size=MOST))
def test_elements_come_back_as_they_went(elements: list[bytes]) -> None:
    assert encoded_from_binary(bytes_to_binary(elements), len(elements), "") == elements


def test_a_whole_body_is_one_encoded_picture_or_pixels_that_fill_whole_pictures(
    reader: Reader, data_folder: Path
) -> None:
    seven = (data_folder / "7-00000.png").read_bytes()
    assert reader.from_body(seven, 0) == InferRequest([seven], (RequestedOutput("probabilities", binary=True),))
    as_long_as_pixels = seven + bytes(-len(seven) % 784)
    assert reader.from_body(as_long_as_pixels, 0).pictures == [as_long_as_pixels]
    pixels = TENSOR.astype(np.uint8).tobytes()
    np.testing.assert_array_equal(reader.from_body(pixels, 0).pictures, TENSOR)
    like_a_picture = b"BM" + b"\xff" * 782  # two pixels that BMP files begin with
    assert isinstance(reader.from_body(like_a_picture, 0).pictures, np.ndarray)
    for neither in (b"12", bytes(785)):
        with pytest.raises(MalformedRequest, match="not a multiple of 784, the bytes of a picture of 28x28x1"):
            reader.from_body(neither, 0)


def test_the_id_the_timeout_and_the_output_are_taken(reader: Reader) -> None:
    asked = reader.from_body(
        text(
            id="order-42",
            parameters={"timeout": 1500, "priority": 3, "mine": "x"},
            outputs=[{"name": "probabilities", "parameters": {"classification": 3, "binary_data": True}}],
        ),
        None,
    )
    assert (asked.id, asked.timeout_s) == ("order-42", 0.0015)
    assert asked.outputs == (RequestedOutput("probabilities", binary=True, classes=3),)
    plain = reader.from_body(text(id=None, parameters=None, outputs=None), None)
    assert (plain.id, plain.timeout_s, plain.outputs) == ("", None, (RequestedOutput("probabilities"),))
    assert reader.from_body(text(parameters={"timeout": 0}), None).timeout_s is None


@pytest.mark.parametrize(("of_all", "own", "binary"), [(True, None, True), (True, False, False), (False, True, True)])
def test_what_an_output_says_of_binary_data_goes_before_what_the_request_says(
    reader: Reader, of_all: bool, own: bool | None, binary: bool
) -> None:
    asked = text(
        parameters={"binary_data_output": of_all},
        outputs=[{"name": "probabilities", "parameters": {"binary_data": own}}],
    )
    assert reader.from_body(asked, None).outputs[0].binary is binary


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"name": "input_0"}, "The model has one input, 'image'; the request has: 'input_0'"),
        ({"datatype": "FP32"}, "the datatype is 'FP32'; the model takes BYTES"),
        ({"datatype": None}, "the datatype is None"),
        ({"datatype": ["BYTES"]}, "the datatype is"),
        ({"shape": [2, 28, 29]}, "takes 1,624 values, not 1,568"),
        ({"shape": []}, "'shape' must be a list"),
        ({"shape": [1] * 9}, "'shape' must be a list"),
        ({"shape": [-1, 28, 28, 1]}, "'shape' must be a list"),
        ({"shape": [True]}, "'shape' must be a list"),
        ({"shape": [2.0]}, "'shape' must be a list"),
        ({"shape": 2}, "'shape' must be a list"),
        ({"shape": [17, 1]}, "Too many"),
        ({"shape": [0]}, "none"),
        ({"shape": [2, 2], "datatype": "BYTES"}, r"shape \[N\] or \[N, 1\]"),
        ({"data": [256] * 1568}, "whole numbers from 0 to 255"),
        ({"data": [-1] * 1568}, "whole numbers from 0 to 255"),
        ({"data": [0.5] * 1568}, "whole numbers from 0 to 255"),
        ({"data": ["7"] * 1568}, "whole numbers from 0 to 255"),
        ({"data": [None] * 1568}, "whole numbers from 0 to 255"),
        ({"data": [[0], 1]}, "nested unevenly"),
        ({"data": "text"}, "'data' must be a list"),
        ({"data": None}, "'data' must be a list"),
        ({"data": []}, "takes 1,568 values, not 0"),
        ({"datatype": "BYTES", "shape": [1], "data": ["not base64!"]}, "element 0 is not base64"),
        ({"datatype": "BYTES", "shape": [2], "data": ["", 7]}, "element 1 is not base64"),
        ({"datatype": "BYTES", "shape": [1], "data": [{"b64": ""}]}, "element 0 is not base64"),
        ({"inputs": []}, "the request has: none"),
        ({"inputs": None}, "'inputs' must be a list"),
        ({"inputs": [7]}, "'inputs' must be a list"),
        (
            {"outputs": [{"name": "logits"}]},
            "The model has one output, 'probabilities'; the request asks for: 'logits'",
        ),
        ({"outputs": [{"name": "probabilities"}] * 2}, "The model has one output"),
        ({"outputs": 7}, "'outputs' must be a list"),
        ({"outputs": [{"name": "probabilities", "parameters": {"classification": -1}}]}, "'classification' is -1"),
        ({"outputs": [{"name": "probabilities", "parameters": {"classification": True}}]}, "'classification' is True"),
        (
            {"outputs": [{"name": "probabilities", "parameters": {"binary_data": "yes"}}]},
            "'binary_data' must be true or",
        ),
        ({"parameters": []}, "'parameters' must be an object"),
        ({"parameters": {"timeout": -1}}, "'timeout' is -1"),
        ({"parameters": {"timeout": 0.5}}, "'timeout' is 0.5"),
        ({"parameters": {"binary_data_output": 1}}, "'binary_data_output' must be true or false"),
        ({"id": 7}, "'id' must be a string"),
    ],
)
def test_what_is_wrong_with_a_request_is_said(reader: Reader, given: dict[str, Any], says: str) -> None:
    with pytest.raises(MalformedRequest, match=says):
        reader.from_body(text(**given), None)


@pytest.mark.parametrize(
    ("binary", "declared", "says"),
    [
        (b"\x01\x00\x00\x00", 4, "element 0 is longer than the rest"),
        (b"\x00\x00\x00", 3, "ends after 0 of 1 element"),
        (b"\x00\x00\x00\x00!", 5, "1 byte left over after 1 element"),
        (b"\x00\x00\x00\x00", 3, "'binary_data_size' is 3, but 4 bytes follow"),
        (b"\x00\x00\x00\x00", "4", "'binary_data_size' is '4'"),
        (b"\x00\x00\x00\x00", True, "'binary_data_size' is True"),
        (b"\x00\x00\x00\x00", None, "4 bytes follow the JSON, but 'binary_data_size' is missing"),
    ],
)
def test_what_is_wrong_with_binary_data_is_said(reader: Reader, binary: bytes, declared: Any, says: str) -> None:
    sent = message(datatype="BYTES", shape=[1])
    sent["inputs"][0].update({"data": None, "parameters": {"binary_data_size": declared}})
    head = json.dumps(sent).encode()
    with pytest.raises(MalformedRequest, match=says):
        reader.from_body(head + binary, len(head))


def test_data_in_both_places_and_shared_memory_are_refused(reader: Reader) -> None:
    sent = message(datatype="BYTES", shape=[1], data=[""])
    sent["inputs"][0]["parameters"] = {"binary_data_size": 0}
    with pytest.raises(MalformedRequest, match="Send only one of them"):
        reader.from_body(json.dumps(sent).encode(), None)
    sent["inputs"][0]["parameters"] = {"shared_memory_region": "mine"}
    with pytest.raises(MalformedRequest, match="Shared memory is not supported"):
        reader.from_body(json.dumps(sent).encode(), None)


def test_json_that_is_said_to_be_longer_than_the_body_is_refused(reader: Reader) -> None:
    with pytest.raises(MalformedRequest, match="says 11 bytes of JSON; the body has 2"):
        reader.from_body(b"{}", 11)


def test_many_elements_are_refused_before_they_are_taken_apart(reader: Reader) -> None:
    """A body of nothing but empty elements would become a million objects."""
    body, length = with_binary(bytes(4_000_000), datatype="BYTES", shape=[1_000_000])
    with pytest.raises(MalformedRequest, match="Too many"):
        reader.from_body(body, length)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
FIELDS = st.sampled_from(["name", "datatype", "shape", "data", "parameters"])
TENSORS = st.dictionaries(FIELDS, JSON) | st.fixed_dictionaries(
    {"name": st.just("image"), "datatype": st.sampled_from(["BYTES", "UINT8"]), "shape": st.just([1]) | JSON},
    optional={
        "data": JSON | st.lists(st.text(max_size=8) | st.integers(-5, 300), max_size=3),
        "parameters": JSON | st.fixed_dictionaries({"binary_data_size": st.integers(-1, 20) | JSON}),
    },
)
OUTPUTS = st.fixed_dictionaries({"name": st.just("probabilities")}, optional={"parameters": JSON})
MESSAGES = JSON | st.fixed_dictionaries(
    {"inputs": st.lists(TENSORS, max_size=2) | JSON},
    optional={"outputs": st.lists(OUTPUTS, max_size=2) | JSON, "parameters": JSON, "id": JSON},
)


@given(message=MESSAGES, binary=st.binary(max_size=30), length=st.integers(-3, 3))
def test_whatever_is_sent_is_pictures_or_a_sentence(reader: Reader, message: Any, binary: bytes, length: int) -> None:
    head = json.dumps(message).encode()
    taken_or_told(reader, head + binary, None)
    taken_or_told(reader, head + binary, len(head))
    taken_or_told(reader, head + binary, max(0, len(head) + length))


@given(body=st.binary(max_size=2000), length=st.none() | st.integers(0, 2100))
def test_bytes_of_no_meaning_are_pictures_or_a_sentence(reader: Reader, body: bytes, length: int | None) -> None:
    taken_or_told(reader, body, length)


def taken_or_told(reader: Reader, body: bytes, length: int | None) -> None:
    try:
        request = reader.from_body(body, length)
    except (MalformedRequest, UploadTooLarge) as exc:
        assert str(exc).endswith(".")  # noqa: PT017 - either way is right
    else:
        assert 1 <= len(request.pictures) <= MOST


PROBABILITIES = np.array([[0.125, 0.75, 0.125], [1e-7, 0.1, 0.9]], np.float32)


def answer(output: RequestedOutput, request_id: str = "") -> tuple[dict[str, Any], bytes]:
    tensor = output_tensor(output, PROBABILITIES, ["cat", "a:b", "ünï"])
    body, length = to_body(InferRequest([], (output,), request_id), [tensor], model="m", version="3")
    return orjson.loads(body if length is None else body[:length]), b"" if length is None else body[length:]


def test_probabilities_are_told_in_json_exactly_and_flat() -> None:
    message, binary = answer(RequestedOutput("probabilities"), "order-42")
    (output,) = message["outputs"]
    assert binary == b""
    assert (message["model_name"], message["model_version"], message["id"]) == ("m", "3", "order-42")
    assert {key: output[key] for key in ("name", "datatype", "shape")} == {
        "name": "probabilities",
        "datatype": "FP32",
        "shape": [2, 3],
    }
    assert np.array(output["data"], np.float32).tobytes() == PROBABILITIES.tobytes()


def test_probabilities_are_told_as_little_endian_bytes_behind_the_json() -> None:
    message, binary = answer(RequestedOutput("probabilities", binary=True))
    (output,) = message["outputs"]
    assert "id" not in message
    assert "data" not in output
    assert output["parameters"] == {"binary_data_size": 24}
    assert struct.unpack("<6f", binary) == tuple(PROBABILITIES.reshape(-1).tolist())


def test_the_best_labels_are_told_best_first_and_ties_in_the_labels_order() -> None:
    message, _ = answer(RequestedOutput("probabilities", classes=2))
    (output,) = message["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [2, 2])
    assert output["data"] == ["0.75:1:a:b", "0.125:0:cat", "0.9:2:ünï", "0.1:1:a:b"]
    message, binary = answer(RequestedOutput("probabilities", binary=True, classes=9))
    assert message["outputs"][0]["shape"] == [2, 3]
    assert encoded_from_binary(binary, 6, "")[-1] == b"1e-7:0:cat"
