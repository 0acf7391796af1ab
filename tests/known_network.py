"""A network whose answers are known: it finds colours, and its class maps say in which places."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from app.contract.bundle import CLASS_MAPS, Signature, TensorSpec, open_bundle
from app.contract.preprocessing import Image, PreprocessingSpec
from app.contract.trust import TRUST
from app.engines.loading import LoadedModel
from app.engines.proof import Proof
from app.engines.registry import EngineName
from app.serving.tuning import Tuning
from app.serving.versions import LoadedStore, TunedModel

LABELS = ("red", "green", "blue")
SIDE, PLACES = 28, 7


class Colours:
    """The logit of a colour at a place is how much the place has of it, less what it has of the others."""

    name: EngineName = "openvino"

    def predict(self, batch: Image) -> NDArray[np.float32]:
        return self.outputs(batch)["probabilities"]

    def outputs(self, batch: Image) -> dict[str, NDArray[np.float32]]:
        cell = SIDE // PLACES
        means = batch.reshape(-1, PLACES, cell, PLACES, cell, 3).mean(axis=(2, 4), dtype=np.float32) / 25
        maps = means * 1.5 - means.sum(axis=3, keepdims=True) / 2
        logits = np.exp(maps.mean(axis=(1, 2)))
        return {"probabilities": logits / logits.sum(axis=1, keepdims=True), CLASS_MAPS: maps}

    def prepare(self, batch_size: int) -> None:
        pass

    def close(self) -> None:
        pass


def store_of(
    bundle: Path,
    engine: Colours,
    *,
    maps: bool = True,
    resize: Literal["stretch", "pad", "crop"] = "stretch",
    on_event_loop: bool = True,
) -> LoadedStore:
    """Return the network as a loaded store: with the files of `bundle`, and a manifest of its own."""
    opened = open_bundle(bundle)
    spec = PreprocessingSpec(height=SIDE, width=SIDE, colour="rgb", resize=resize)
    outputs = (TensorSpec(name=CLASS_MAPS, dtype="float32", shape=(None, PLACES, PLACES, len(LABELS))),)
    changes: dict[str, Any] = {
        "schema_version": 2,
        "labels": LABELS,
        "preprocessing": spec,
        "signature": Signature.of(spec, LABELS, outputs if maps else ()),
        "files": {file: digest for file, digest in opened.manifest.files.items() if file != TRUST},
    }
    known = type(opened)(opened.path, opened.manifest.model_copy(update=changes))
    golden = opened.golden
    images = np.zeros((len(golden.names), *spec.shape), np.uint8)
    other = {CLASS_MAPS: engine.outputs(images)[CLASS_MAPS]} if maps else {}
    vars(known)["golden"] = type(golden)(
        golden.names, golden.encoded, images, engine.outputs(images)["probabilities"], other
    )
    loaded = LoadedModel(known, engine, "as a test", Proof(len(images), 0.0))
    return LoadedStore((TunedModel(loaded, Tuning({1: 0.001, 4: 0.002}, on_event_loop, 1 << 16)),), ())
