"""Statistics of the models since the service started, in Triton's terms, summed over all workers.

Triton measures per request; the service measures per picture (queue, compute_input: decoding) or per batch
(compute_infer). Distributing rows is not measured: compute_output is 0.
"""

from typing import Any

from app.metrics import Metrics
from app.serving.classifier import Classifier

_NOTHING = (0.0, 0.0)


def model_statistics(metrics: Metrics, models: list[Classifier]) -> dict[str, Any]:
    """Return the statistics of the live versions."""
    found = metrics.read()
    return {"model_stats": [_of_version(found, model.name, model.version) for model in models]}


def _of_version(found: dict[str, dict[tuple[str, ...], list[float]]], model: str, version: str) -> dict[str, Any]:
    seconds = found["imageclass_version_seconds"]
    batches = {
        int(size): _duration(*numbers)
        for (of_model, of_version, size), numbers in found["imageclass_version_batch_seconds"].items()
        if (of_model, of_version) == (model, version) and numbers[1]
    }
    (pictures,) = found["imageclass_version_pictures"].get((model, version), [0.0])
    (last,) = found["imageclass_version_last_inference_timestamp_seconds"].get((model, version), [0.0])
    success, failure, queue, decode = (
        _duration(*seconds.get((model, version, of), _NOTHING)) for of in ("success", "failure", "queue", "decode")
    )
    infer = {key: sum(batch[key] for batch in batches.values()) for key in ("count", "ns")}
    return {
        "name": model,
        "version": version,
        "last_inference": round(last * 1000),
        "inference_count": round(pictures),
        "execution_count": infer["count"],
        "inference_stats": {
            "success": success,
            "fail": failure,
            "queue": queue,
            "compute_input": decode,
            "compute_infer": infer,
            "compute_output": _duration(*_NOTHING),
        },
        "batch_stats": [
            {
                "batch_size": size,
                "compute_input": _duration(*_NOTHING),
                "compute_infer": batches[size],
                "compute_output": _duration(*_NOTHING),
            }
            for size in sorted(batches)
        ],
    }


def _duration(seconds: float, count: float) -> dict[str, int]:
    return {"count": round(count), "ns": round(seconds * 1e9)}
