"""mosec, with its own batching.

Tuned: a worker more than there are cores, batches of at most 16 that wait for at most 1 ms
(mosecorg.github.io/mosec, "Configuration" and "Performance tuning"). Of 2, 3 and 4 workers, batches of 16 and 64, and
waits of 1 and 5 ms, these gave most requests/s. Pictures are decoded in the same stage as they are classified, because
two stages would hand every tensor from process to process.
"""

import json
from typing import Any

import numpy as np
from mosec import Server, Worker
from saved_model import BATCH_SIZE, CORES, SavedModel


class Classifier(Worker):
    def __init__(self) -> None:
        super().__init__()
        self.model = SavedModel(threads=1)
        self.model.warm_up()

    def deserialize(self, data: bytes) -> bytes:
        return data

    def forward(self, data: list[bytes]) -> list[dict[str, Any]]:
        rows = self.model.predict(np.stack([self.model.decode(each) for each in data]))
        return [self.model.answer(row) for row in rows]

    def serialize(self, data: Any) -> bytes:
        return json.dumps(data).encode()


if __name__ == "__main__":
    server = Server()
    server.append_worker(Classifier, num=CORES + 1, max_batch_size=min(16, BATCH_SIZE), max_wait_time=1)
    server.run()
