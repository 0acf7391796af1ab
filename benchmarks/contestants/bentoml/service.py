"""BentoML, with its adaptive batching.

Tuned: `batchable` with a bound on size (docs.bentoml.com/en/latest/guides/adaptive-batching.html), and the bound on
latency at its default, because BentoML rejects requests that would exceed it; a worker for each core
(…/build-with-bentoml/parallelize-requests.html), one TensorFlow thread for each worker, no access log. BentoML passes
uploads as files: it writes each to disk.
"""

from pathlib import Path
from typing import Annotated, Any

import bentoml
import numpy as np
from bentoml.validators import ContentType
from saved_model import BATCH_SIZE, CORES, SavedModel


@bentoml.service(
    workers=CORES, traffic={"timeout": 30}, logging={"access": {"enabled": False}}, metrics={"enabled": False}
)
class Classifier:
    def __init__(self) -> None:
        self.model = SavedModel(threads=1)
        self.model.warm_up()

    @bentoml.api(batchable=True, max_batch_size=BATCH_SIZE)
    def predict(self, file: list[Annotated[Path, ContentType("image/*")]]) -> list[dict[str, Any]]:
        batch = np.stack([self.model.decode(picture.read_bytes()) for picture in file])
        return [self.model.answer(row) for row in self.model.predict(batch)]
