"""Ask a service everything that tritonclient can ask of this protocol, and print what it got as JSON.

python triton.py http|grpc ADDRESS MODEL PICTURE…. It runs in the environment of the clients, and is checked elsewhere.
"""

import importlib
import json
import sys
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
from tritonclient.utils import InferenceServerException


def main(protocol: str, address: str, model: str, files: list[str]) -> dict[str, Any]:
    triton = importlib.import_module(f"tritonclient.{protocol}")
    with triton.InferenceServerClient(address) as client:
        return ask(triton, client, model, [Path(file).read_bytes() for file in files], is_grpc=protocol == "grpc")


def ask(triton: Any, client: Any, model: str, pictures: list[bytes], *, is_grpc: bool) -> dict[str, Any]:
    as_json = {"as_json": True} if is_grpc else {}
    metadata = client.get_model_metadata(model, **as_json)
    name, output = metadata["inputs"][0]["name"], metadata["outputs"][0]["name"]

    def tensor(values: Any, datatype: str, **options: bool) -> Any:
        made = triton.InferInput(name, list(values.shape), datatype)
        made.set_data_from_numpy(values, **options)
        return made

    def probabilities(inputs: Any, **options: Any) -> Any:
        return client.infer(model, [inputs], **options).as_numpy(output).tolist()

    encoded = tensor(np.array(pictures, np.object_), "BYTES")
    _, *shape = (int(size) for size in metadata["inputs"][0]["shape"])
    pixels = np.arange(2 * int(np.prod(shape)), dtype=np.uint32).astype(np.uint8).reshape(2, *shape)
    before = client.get_inference_statistics(model, **as_json)
    found = {
        "statistics_before": before,
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready(model),
        "other_ready": client.is_model_ready("no-such-model") if not is_grpc else False,
        "server": client.get_server_metadata(**as_json),
        "model": metadata,
        "config": client.get_model_config(model, **as_json),
        "by_bytes": probabilities(encoded),
        "by_columns": probabilities(tensor(np.array(pictures, np.object_).reshape(-1, 1), "BYTES")),
        "by_version": probabilities(encoded, model_version=metadata["versions"][0]),
        "by_pixels": probabilities(tensor(pixels, "UINT8")),
        "id": client.infer(model, [encoded], request_id="order-42").get_response(**as_json)["id"],
        "classified": [
            [each.decode() for each in row]
            for row in probabilities(encoded, outputs=[triton.InferRequestedOutput(output, class_count=2)])
        ],
        "concurrent": concurrently(client, model, encoded, output, is_grpc=is_grpc),
        "statistics": client.get_inference_statistics(model, **as_json),
        "index": client.get_model_repository_index(**as_json),
        "errors": {
            what: error(lambda given=given: client.infer(**given))
            for what, given in {
                "no such model": {"model_name": "no-such-model", "inputs": [encoded]},
                "no such version": {"model_name": model, "inputs": [encoded], "model_version": "99"},
                "no picture": {
                    "model_name": model,
                    "inputs": [tensor(np.array([pictures[0], b"no picture"], np.object_), "BYTES")],
                },
                "late": {"model_name": model, "inputs": [encoded], "timeout": 1},
            }.items()
        },
    }
    if not is_grpc:
        in_json = {"binary_data": False}
        found["by_json"] = probabilities(tensor(pixels, "UINT8", **in_json))
        for coding in ("gzip", "deflate"):
            found[f"by_{coding}"] = probabilities(encoded, request_compression_algorithm=coding)
            found[f"to_{coding}"] = probabilities(encoded, response_compression_algorithm=coding)
        found["to_json"] = probabilities(encoded, outputs=[triton.InferRequestedOutput(output, binary_data=False)])
    return found


def concurrently(client: Any, model: str, encoded: Any, output: str, *, is_grpc: bool) -> int:
    """Return how many of twenty requests at once were answered."""
    if is_grpc:
        done: Queue[tuple[Any, Any]] = Queue()
        for _ in range(20):
            client.async_infer(model, [encoded], callback=lambda result, error: done.put((result, error)))
        answers = [done.get(timeout=60) for _ in range(20)]
        return sum(error is None and result.as_numpy(output) is not None for result, error in answers)
    asked = [client.async_infer(model, [encoded]) for _ in range(20)]
    return sum(each.get_result().as_numpy(output) is not None for each in asked)


def error(call: Any) -> list[str]:
    try:
        call()
    except InferenceServerException as exc:
        return [str(exc.status()), str(exc.message())]
    return ["", "no error"]


if __name__ == "__main__":
    _, protocol, address, model, *files = sys.argv
    json.dump(main(protocol, address, model, files), sys.stdout)
