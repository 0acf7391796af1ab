"""The part shared by all peers: the bundle's SavedModel, its preprocessing, and its answer.

It needs only OpenCV, NumPy and the engine, so that it runs in any contestant's environment. BENCHMARK_ENGINE says
which: tensorflow, or openvino with this project's settings for several processes. The preprocessing is the spec's for
the benchmark's pictures, which are opaque and 8 bit; the harness compares the labels. Framing is this project's module,
because whoever serves such a network elsewhere has to do that work there, too.
"""

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import cv2
import numpy as np

BUNDLE = Path(os.environ["BENCHMARK_BUNDLE"])
PORT = int(os.environ["BENCHMARK_PORT"])
CORES = len(os.sched_getaffinity(0))
BATCH_SIZE = int(os.environ["BENCHMARK_BATCH_SIZE"])

cv2.setNumThreads(1)


class _TensorFlow:
    def __init__(self, threads: int | None) -> None:
        import tensorflow as tf

        if threads is not None:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(1)
        self._tf = tf
        self._loaded = tf.saved_model.load(str(BUNDLE))
        self._run = self._loaded.signatures["serving_default"]

    def predict(self, batch: Any) -> Any:
        return self._run(image=self._tf.constant(batch))["probabilities"].numpy()


class _OpenVino:
    """A network for each power of two up to the largest batch: a network of any size is slower, by up to 2 ×."""

    def __init__(self, threads: int | None) -> None:
        import openvino

        core = openvino.Core()
        options = {
            "INFERENCE_PRECISION_HINT": "f32",
            "ENABLE_CPU_PINNING": False,
            "INFERENCE_NUM_THREADS": threads or CORES,
            "NUM_STREAMS": 1,
        }
        self._requests = {}
        size = 1
        while True:
            model = core.read_model(str(BUNDLE))
            _, *shape = model.input(0).partial_shape
            model.reshape([size, *(each.get_length() for each in shape)])
            for output in list(model.outputs):
                if "probabilities" not in output.get_names():
                    model.remove_result(output.node)
            self._requests[size] = core.compile_model(model, "CPU", options).create_infer_request()
            if size >= BATCH_SIZE:
                break
            size *= 2

    def predict(self, batch: Any) -> Any:
        count = len(batch)
        size = 1 << (count - 1).bit_length()
        request = self._requests[size]
        tensor = request.get_input_tensor().data
        tensor[:count] = batch
        request.infer()
        return request.get_output_tensor().data[:count].copy()


def _framing() -> Any:
    """Return app/contract/framing.py, without the packages that the rest of `app` needs."""
    file = Path(__file__).parents[3] / "app" / "contract" / "framing.py"
    spec = importlib.util.spec_from_file_location("framing", file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is missing")
    module = sys.modules["framing"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class SavedModel:
    """The bundle, ready to run."""

    def __init__(self, *, threads: int | None = None) -> None:
        engines = {"tensorflow": _TensorFlow, "openvino": _OpenVino}
        manifest = json.loads((BUNDLE / "manifest.json").read_text())
        spec = manifest["preprocessing"]
        self.labels: list[str] = manifest["labels"]
        self._size = (spec["width"], spec["height"])
        self._flags = cv2.IMREAD_GRAYSCALE if spec["colour"] == "grey" else cv2.IMREAD_COLOR_RGB
        self._channels = 1 if spec["colour"] == "grey" else 3
        self._frame = _framing().frame if spec.get("framing") == "mass" else None
        self.predict = engines[os.environ.get("BENCHMARK_ENGINE", "tensorflow")](threads).predict
        """Return the probabilities (N, K) of a batch (N, H, W, C) of uint8."""

    def decode(self, data: bytes) -> Any:
        """Return the tensor (H, W, C) of an encoded picture."""
        image = cv2.imdecode(np.frombuffer(data, np.uint8), self._flags)
        if image is None:
            raise ValueError("not a picture")
        if self._frame is not None and (framed := self._frame(image, self._size[1], self._size[0])) is not None:
            image = framed.image
        if image.shape[1::-1] != self._size:
            image = cv2.resize(image, self._size, interpolation=cv2.INTER_AREA)
        return image.reshape(self._size[1], self._size[0], self._channels)

    def warm_up(self) -> None:
        """Run the expected batch sizes, as any service would before it is ready."""
        for size in (1, BATCH_SIZE):
            self.predict(np.zeros((size, self._size[1], self._size[0], self._channels), np.uint8))

    def answer(self, probabilities: Any) -> dict[str, Any]:
        """Return the answer to one picture from its row of probabilities."""
        values = probabilities.tolist()
        best = int(np.argmax(values))
        return {
            "label": self.labels[best],
            "probability": values[best],
            "probabilities": dict(zip(self.labels, values, strict=True)),
        }
