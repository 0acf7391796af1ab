"""Ray Serve, with its own batching.

Tuned: HAProxy in front and RAY_SERVE_THROUGHPUT_OPTIMIZED, both set by the harness
(docs.ray.io/en/master/kuberay/user-guides/serve-high-throughput.html); `serve.batch`
(docs.ray.io/en/latest/serve/advanced-guides/dyn-req-batch.html); a replica for each core, each with
one TensorFlow thread; request logs off. Behind HAProxy, Ray listens on every network interface, whatever host is set.
"""

import logging
import signal
from typing import Any

import numpy as np
import ray
from ray import serve
from ray.serve.schema import LoggingConfig
from saved_model import BATCH_SIZE, CORES, PORT, SavedModel
from starlette.requests import Request

_QUIET = LoggingConfig(log_level="ERROR", enable_access_log=False)


@serve.deployment(
    num_replicas=CORES, max_ongoing_requests=512, ray_actor_options={"num_cpus": 0.5}, logging_config=_QUIET
)
class Classifier:
    def __init__(self) -> None:
        self.model = SavedModel(threads=1)
        self.model.warm_up()

    @serve.batch(max_batch_size=BATCH_SIZE, batch_wait_timeout_s=0.002)
    async def run(self, images: list[Any]) -> list[Any]:
        return list(self.model.predict(np.stack(images)))

    async def __call__(self, request: Request) -> dict[str, Any]:
        form = await request.form()
        image = self.model.decode(await form["file"].read())
        return self.model.answer(await self.run(image))


if __name__ == "__main__":
    ray.init(include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False, num_cpus=CORES)
    serve.start(http_options={"host": "127.0.0.1", "port": PORT}, logging_config=_QUIET)
    serve.run(Classifier.bind(), route_prefix="/predict", logging_config=_QUIET)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    ray.shutdown()
