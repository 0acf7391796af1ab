"""Metadata of the service and its models, by the protocol and by Triton: the same over HTTP and gRPC.

A model has one input name. Its metadata shows the tensor that the network takes, UINT8 [-1, H, W, C]; BYTES [-1] of
encoded pictures are accepted under the same name, as by OpenVINO Model Server. Clients that generate data from
metadata, as load generators do, generate valid pixels, but no valid JPEG.
"""

from typing import Any

from app.serving.classifier import Classifier

SERVER_NAME = "imageclass"
PLATFORM = "tensorflow_savedmodel"
EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "parameters",
    "statistics",
)


def server_metadata(version: str) -> dict[str, Any]:
    return {"name": SERVER_NAME, "version": version, "extensions": list(EXTENSIONS)}


def model_metadata(model: Classifier) -> dict[str, Any]:
    signature = model.manifest.signature
    return {
        "name": model.name,
        "versions": [model.version],
        "platform": PLATFORM,
        "inputs": [
            {"name": signature.input.name, "datatype": "UINT8", "shape": [-1, *model.manifest.preprocessing.shape]}
        ],
        "outputs": [{"name": signature.output.name, "datatype": "FP32", "shape": [-1, len(model.manifest.labels)]}],
    }


def model_configuration(model: Classifier, *, max_batch_pictures: int) -> dict[str, Any]:
    """Return the fields of Triton's ModelConfig that apply here. Dimensions omit the batch, as Triton's do.

    `max_batch_size` is the maximum number of pictures in one request, not of pictures per batch: clients limit their
    requests by it.
    """
    signature = model.manifest.signature
    return {
        "name": model.name,
        "platform": PLATFORM,
        "backend": model.loaded.engine.name,
        "version_policy": {"specific": {"versions": [model.manifest.version]}},
        "max_batch_size": max_batch_pictures,
        "input": [
            {
                "name": signature.input.name,
                "data_type": "TYPE_UINT8",
                "format": "FORMAT_NHWC",
                "dims": list(model.manifest.preprocessing.shape),
            }
        ],
        "output": [{"name": signature.output.name, "data_type": "TYPE_FP32", "dims": [len(model.manifest.labels)]}],
        "dynamic_batching": {"preferred_batch_size": list(model.tuning.plan.sizes)},
    }
