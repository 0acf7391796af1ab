"""One picture, the same probabilities by every road: the golden pictures, sent down all of them to the real service."""

import base64
import json
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from app.api.protocols.open_inference import open_inference_pb2 as pb
from app.client import Prediction, ServiceClient
from app.contract.bundle import GoldenSet, open_bundle
from tests.end_to_end.draining import DrainingService

Probabilities = NDArray[np.float64]
MODEL = "digits"


class Roads:
    """Each method sends all golden pictures, and returns probabilities (N, K) in the order of the labels."""

    def __init__(self, url: str, grpc_port: int, golden: GoldenSet) -> None:
        self._http = httpx.Client(base_url=url, timeout=60)
        self._url = url
        self._grpc_port = grpc_port
        self._encoded = list(golden.encoded)
        self._images = golden.images

    def close(self) -> None:
        self._http.close()

    def multipart(self) -> Probabilities:
        return self._one_by_one(lambda picture: {"files": {"file": picture}})

    def raw(self) -> Probabilities:
        return self._one_by_one(lambda picture: {"content": picture, "headers": {"content-type": "image/png"}})

    def raw_by_the_long_way(self) -> Probabilities:
        """Chunked, which the fast path does not take."""
        return self._one_by_one(
            lambda picture: {"content": iter([picture]), "headers": {"content-type": "application/octet-stream"}}
        )

    def batch(self) -> Probabilities:
        answer = self._post("/predict/batch", files=[("files", picture) for picture in self._encoded])
        return np.array([list(each["probabilities"].values()) for each in answer["predictions"]])

    def client(self) -> Probabilities:
        with ServiceClient(self._url) as client:
            found = [outcome for outcome in client.predict_many(self._encoded) if isinstance(outcome, Prediction)]
        return np.array([list(each.probabilities.values()) for each in found])

    def v1_rows_of_base64(self) -> Probabilities:
        return np.array(self._v1("predict", instances=self._base64())["predictions"])

    def v1_columns_of_base64(self) -> Probabilities:
        return np.array(self._v1("predict", inputs={"image": self._base64()})["outputs"])

    def v1_rows_of_pixels(self) -> Probabilities:
        return np.array(self._v1("predict", instances=self._images.tolist())["predictions"])

    def v1_columns_of_pixels(self) -> Probabilities:
        return np.array(self._v1("predict", inputs=self._images.tolist())["outputs"])

    def v1_classify(self) -> Probabilities:
        results = self._v1("classify", examples=[{"image_bytes": each} for each in self._base64()])["results"]
        return np.array([[score for _, score in row] for row in results])

    def v2_base64(self) -> Probabilities:
        texts = [each["b64"] for each in self._base64()]
        return self._v2({"shape": [len(texts)], "datatype": "BYTES", "data": texts})

    def v2_pixels(self) -> Probabilities:
        data = self._images.reshape(-1).tolist()
        return self._v2({"shape": list(self._images.shape), "datatype": "UINT8", "data": data})

    def v2_binary_bytes(self) -> Probabilities:
        elements = b"".join(struct.pack("<I", len(picture)) + picture for picture in self._encoded)
        return self._v2_binary({"shape": [len(self._encoded)], "datatype": "BYTES"}, elements)

    def v2_binary_pixels(self) -> Probabilities:
        return self._v2_binary({"shape": list(self._images.shape), "datatype": "UINT8"}, self._images.tobytes())

    def grpc_bytes(self) -> Probabilities:
        contents = pb.InferTensorContents(bytes_contents=self._encoded)
        return self._grpc(datatype="BYTES", shape=[len(self._encoded)], contents=contents)

    def grpc_pixels(self) -> Probabilities:
        return self._grpc(raw=self._images.tobytes(), datatype="UINT8", shape=list(self._images.shape))

    def _post(self, path: str, **options: Any) -> Any:
        answer = self._http.post(path, **options)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def _one_by_one(self, body: Callable[[bytes], dict[str, Any]]) -> Probabilities:
        answers = [self._post("/predict", **body(picture)) for picture in self._encoded]
        return np.array([list(answer["probabilities"].values()) for answer in answers])

    def _base64(self) -> list[dict[str, str]]:
        return [{"b64": base64.b64encode(picture).decode()} for picture in self._encoded]

    def _v1(self, verb: str, **message: Any) -> Any:
        return self._post(f"/v1/models/{MODEL}:{verb}", json=message)

    def _v2(self, tensor: dict[str, Any]) -> Probabilities:
        answer = self._post(f"/v2/models/{MODEL}/infer", json={"inputs": [{"name": "image", **tensor}]})
        (output,) = answer["outputs"]
        return np.array(output["data"]).reshape(output["shape"])

    def _v2_binary(self, tensor: dict[str, Any], data: bytes) -> Probabilities:
        head = json.dumps(
            {
                "inputs": [{"name": "image", **tensor, "parameters": {"binary_data_size": len(data)}}],
                "parameters": {"binary_data_output": True},
            }
        ).encode()
        length = "Inference-Header-Content-Length"
        answer = self._http.post(f"/v2/models/{MODEL}/infer", content=head + data, headers={length: str(len(head))})
        assert answer.status_code == 200, answer.text
        values = np.frombuffer(answer.content[int(answer.headers[length]) :], "<f4")
        return values.reshape(len(self._encoded), -1).astype(np.float64)

    def _grpc(self, *, raw: bytes | None = None, **tensor: Any) -> Probabilities:
        inputs = [pb.ModelInferRequest.InferInputTensor(name="image", **tensor)]
        contents = [] if raw is None else [raw]
        message = pb.ModelInferRequest(model_name=MODEL, inputs=inputs, raw_input_contents=contents)
        with grpc.insecure_channel(f"127.0.0.1:{self._grpc_port}") as channel:
            ask = channel.unary_unary(
                "/inference.GRPCInferenceService/ModelInfer",
                request_serializer=pb.ModelInferRequest.SerializeToString,
                response_deserializer=pb.ModelInferResponse.FromString,
            )
            answer = ask(message, timeout=60)
        values = np.frombuffer(answer.raw_output_contents[0], "<f4") if answer.raw_output_contents else None
        found = values if values is not None else np.array(answer.outputs[0].contents.fp32_contents)
        return found.reshape(len(self._encoded), -1).astype(np.float64)


ROADS = sorted(name for name in vars(Roads) if not name.startswith("_") and name != "close")


@pytest.fixture(scope="module")
def golden(trained_store: Path) -> GoldenSet:
    return open_bundle(trained_store / MODEL / "1").golden


@pytest.fixture(scope="module")
def roads(trained_store: Path, golden: GoldenSet) -> Iterator[Roads]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    service = DrainingService(trained_store, grpc_port=port)
    roads = Roads(service.url, port, golden)
    try:
        yield roads
    finally:
        roads.close()
        assert service.stop() == 0


@pytest.mark.parametrize("road", ROADS)
def test_the_golden_pictures_get_trainings_probabilities_by_every_road(
    roads: Roads, golden: GoldenSet, road: str
) -> None:
    found = getattr(roads, road)()
    assert found.shape == golden.probabilities.shape
    # Batches of other sizes differ in the last digits of a float32.
    np.testing.assert_allclose(found, golden.probabilities, atol=1e-5)
