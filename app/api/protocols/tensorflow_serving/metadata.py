"""A model's status and signature in TensorFlow Serving's form. Only the live version is shown, or the named one."""

from typing import Any

from app.contract.bundle import TensorSpec
from app.serving.classifier import Classifier

_DTYPES = {"uint8": "DT_UINT8", "float32": "DT_FLOAT"}


def status(model: Classifier) -> dict[str, Any]:
    """Return GetModelStatusResponse."""
    return {
        "model_version_status": [
            {
                "version": model.version,
                "state": "AVAILABLE",
                "status": {"error_code": "OK", "error_message": ""},
            }
        ]
    }


def metadata(model: Classifier) -> dict[str, Any]:
    """Return GetModelMetadataResponse: the SavedModel's signature, with the tensors' names as Keras exports them."""
    signature = model.manifest.signature
    return {
        "model_spec": {"name": model.name, "signature_name": "", "version": model.version},
        "metadata": {
            "signature_def": {
                "signature_def": {
                    signature.name: {
                        "inputs": {
                            signature.input.name: _tensor(signature.input, f"{signature.name}_{signature.input.name}:0")
                        },
                        "outputs": {signature.output.name: _tensor(signature.output, "StatefulPartitionedCall:0")},
                        "method_name": "tensorflow/serving/predict",
                        "defaults": {},
                    }
                }
            }
        },
    }


def _tensor(tensor: TensorSpec, name: str) -> dict[str, Any]:
    """Return TensorInfo; whole numbers of 64 bits are strings in the JSON of protocol buffers."""
    sizes = ["-1" if size is None else str(size) for size in tensor.shape]
    return {
        "dtype": _DTYPES[tensor.dtype],
        "tensor_shape": {"dim": [{"size": size, "name": ""} for size in sizes], "unknown_rank": False},
        "name": name,
    }
