"""The model of Triton's Python backend: decodes the pictures of all requests that Triton batched, and infers once."""

import os
import sys
from typing import Any

sys.path[:0] = os.environ["PYTHONPATH"].split(os.pathsep)  # the backend's interpreter ignores the variable
import numpy as np  # noqa: E402
import triton_python_backend_utils as triton  # noqa: E402
from saved_model import SavedModel  # noqa: E402


class TritonPythonModel:
    def initialize(self, _: dict[str, str]) -> None:
        self.model = SavedModel(threads=1)
        self.model.warm_up()

    def execute(self, requests: list[Any]) -> list[Any]:
        pictures = [triton.get_input_tensor_by_name(request, "image").as_numpy().reshape(-1) for request in requests]
        images = np.stack([self.model.decode(each) for of_request in pictures for each in of_request])
        rows = self.model.predict(images)
        answers, start = [], 0
        for of_request in pictures:
            part = rows[start : start + len(of_request)]
            start += len(of_request)
            answers.append(triton.InferenceResponse([triton.Tensor("probabilities", part)]))
        return answers
