"""The bundle of schema 2 in tests/data/bundles, which later releases must go on reading. How it was made:

    .venv/bin/python -m tests.contract.kept_bundle tests/data/bundles

It has all that schema 2 adds, and knows nothing of clothes: its weights are random.
"""

import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from app.contract.bundle import (
    GOLDEN_EXPECTED,
    GOLDEN_FOLDER,
    MANIFEST,
    METRICS,
    MODEL_CARD,
    GoldenPicture,
    Manifest,
    Signature,
    TensorSpec,
    digests,
    expected_npz,
)
from app.contract.preprocessing import PreprocessingSpec, preprocess
from app.engines.tensorflow import import_tensorflow, open_tensorflow

NAME, VERSION = "clothes", 1
LABELS = ("dress", "hat", "shoes")
SPEC = PreprocessingSpec(version=2, height=16, width=16, colour="rgb", resize="crop", jpeg_scale="reduced")
OTHER_OUTPUTS = (
    TensorSpec(name="features", dtype="float32", shape=(None, 48)),
    TensorSpec(name="heat_map", dtype="float32", shape=(None, 4, 4)),
)


def make(store: Path, photos: Path) -> None:
    """Write the bundle into `store`; its golden pictures are those of `photos`."""
    path = store / NAME / str(VERSION)
    signature = Signature.of(SPEC, LABELS, OTHER_OUTPUTS)
    _save_network(path)
    (path / GOLDEN_FOLDER).mkdir()
    golden = []
    for index, label in enumerate(LABELS):
        file = f"{GOLDEN_FOLDER}/{index:02}.jpeg"
        shutil.copy(photos / f"{label}.jpg", path / file)
        golden.append(GoldenPicture(file=file, label=label))
    images = np.stack([preprocess((path / picture.file).read_bytes(), SPEC) for picture in golden])
    engine = open_tensorflow(path, signature, threads=1)
    (path / GOLDEN_EXPECTED).write_bytes(expected_npz(images, engine.predict(images)))
    (path / METRICS).write_text("{}\n")
    (path / MODEL_CARD).write_text("# clothes\n\nFor the tests alone: its weights are random.\n")
    manifest = Manifest(
        schema_version=2,
        name=NAME,
        version=VERSION,
        created_at=datetime(2026, 11, 26, tzinfo=UTC),
        labels=LABELS,
        preprocessing=SPEC,
        signature=signature,
        metrics={},
        training={},
        split={},
        git_commit=None,
        libraries={},
        golden=tuple(golden),
        files=digests(path),
    )
    (path / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n")


def _save_network(path: Path) -> None:
    tf = import_tensorflow()
    weights = tf.Variable(np.random.default_rng(0).normal(size=(48, 3)).astype(np.float32))

    @tf.function(input_signature=[tf.TensorSpec((None, *SPEC.shape), tf.uint8, name="image")])  # type: ignore[untyped-decorator]
    def serve(image: Any) -> dict[str, Any]:
        means = tf.reduce_mean(tf.reshape(tf.cast(image, tf.float32) / 255, (-1, 4, 4, 4, 4, 3)), axis=(2, 4))
        features = tf.reshape(means, (-1, 48))
        return {
            "probabilities": tf.nn.softmax(features @ weights),
            "features": features,
            "heat_map": tf.reduce_mean(means, axis=3),
        }

    module = tf.Module()
    module.serve, module.weights = serve, weights
    tf.saved_model.save(module, str(path), signatures={"serving_default": serve})
    shutil.rmtree(path / "assets")


if __name__ == "__main__":
    make(Path(sys.argv[1]), Path(__file__).parents[1] / "data" / "photos")
