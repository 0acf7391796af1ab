"""Ray Data's own recipe for many pictures: `read_images`, a class with the model on a pool of actors, `write_parquet`
(docs.ray.io/en/latest/data/batch_inference.html, docs.ray.io/en/latest/data/working-with-images.html).

    python recipe.py FOLDER OUT ACTORS CORES_OF_EACH

Tuned: batches of 32, as in this project; one TensorFlow thread per actor; progress bars off. If the actors take all
cores, none is left to read pictures, and no row is written: hence CORES_OF_EACH is a fraction.
"""

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import numpy as np
import ray

BUNDLE = Path(os.environ["BENCHMARK_BUNDLE"])
BATCH = 32


class Predictor:
    """The SavedModel, as its users would load it."""

    def __init__(self) -> None:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        self._tf = tf
        self._loaded = tf.saved_model.load(str(BUNDLE))
        self._run = self._loaded.signatures["serving_default"]

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        answers = self._run(image=self._tf.constant(batch["image"]))["probabilities"].numpy()
        return {"path": batch["path"], "label": answers.argmax(axis=1).astype(np.int32), "probabilities": answers}


def main(folder: str, out: str, actors: int, cores_of_each: float) -> None:
    """Classify every picture of the folder, and write Parquet."""
    ray.init(include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False, num_cpus=os.cpu_count())
    ray.data.DataContext.get_current().enable_progress_bars = False
    spec = json.loads((BUNDLE / "manifest.json").read_text())["preprocessing"]
    mode = "L" if spec["colour"] == "grey" else "RGB"
    pictures = ray.data.read_images(folder, size=(spec["height"], spec["width"]), mode=mode, include_paths=True)
    strategy = ray.data.ActorPoolStrategy(size=actors)
    pictures.map_batches(Predictor, compute=strategy, batch_size=BATCH, num_cpus=cores_of_each).write_parquet(out)
    ray.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
