"""LitServe, with its own batching.

Tuned: batches with a short wait (lightning.ai/docs/litserve/features/batching); the ZeroMQ queue `fast_queue` (the
docstring of `LitServer`, "Production Setup"); few logs and no client file (that of `LitServer.run`, "Production
Configuration"), and no access log, an option for uvicorn. Forms need python-multipart, which LitServe does not
install. One inference worker with all cores, and one API server for each core.
"""

from typing import Any

import litserve as ls
import numpy as np
from fastapi import Request
from saved_model import BATCH_SIZE, CORES, PORT, SavedModel


class Classifier(ls.LitAPI):
    def setup(self, device: str) -> None:
        self.model = SavedModel()
        self.model.warm_up()

    def decode_request(self, request: Request) -> Any:
        return self.model.decode(request["file"].file.read())

    def batch(self, inputs: list[Any]) -> Any:
        return np.stack(inputs)

    def predict(self, batch: Any) -> Any:
        return self.model.predict(batch)

    def unbatch(self, output: Any) -> list[Any]:
        return list(output)

    def encode_response(self, output: Any) -> dict[str, Any]:
        return self.model.answer(output)


if __name__ == "__main__":
    api = Classifier(max_batch_size=BATCH_SIZE, batch_timeout=0.002)
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue=True)
    server.run(
        host="127.0.0.1",
        port=PORT,
        num_api_servers=CORES,
        log_level="warning",
        generate_client_file=False,
        access_log=False,
    )
