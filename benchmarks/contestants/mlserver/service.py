"""MLServer, with its adaptive batching.

Tuned: `max_batch_size` and `max_batch_time` (docs.seldon.ai/mlserver/user-guide/adaptive-batching) in
model-settings.json; uploads arrive through a custom endpoint of a custom runtime (…/user-guide/custom; the endpoint:
`mlserver.handlers.custom_handler` in its source). MLServer batches in its main process and does not pass custom
endpoints of its parallel workers through the batcher, hence `parallel_workers` 0 with the model in a thread of its own.
Metrics, tracing and logs are off.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from fastapi import UploadFile
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.context import model_context
from mlserver.handlers import custom_handler
from mlserver.types import InferenceRequest, InferenceResponse
from saved_model import SavedModel


class Classifier(MLModel):
    async def load(self) -> bool:
        self._model = SavedModel()
        self._model.warm_up()
        self._executor = ThreadPoolExecutor(1)
        return True

    @custom_handler(rest_path="/predict")
    async def classify(self, file: UploadFile) -> dict[str, Any]:
        image = self._model.decode(await file.read())
        request = InferenceRequest(inputs=[NumpyCodec.encode_input("image", image[None])])
        with model_context(self.settings):  # custom endpoints are called outside of it
            response = await self.predict(request)
        return self._model.answer(NumpyCodec.decode_output(response.outputs[0])[0])

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        batch = np.asarray(NumpyCodec.decode_input(payload.inputs[0]))
        loop = asyncio.get_running_loop()
        probabilities = await loop.run_in_executor(self._executor, self._model.predict, batch)
        return InferenceResponse(
            id=payload.id,
            model_name=self.name,
            outputs=[NumpyCodec.encode_output("probabilities", probabilities)],
        )
