"""Measure what a network loses if large JPEGs are decoded at a reduced scale: the same photos, decoded both ways.

The photos of a data set are enlarged to 12 megapixels first. They have less detail than a phone's, and the same sensor
noise as in the workload `phone`; the bundle's own pictures may all be too small to be reduced.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from app.contract.bundle import Bundle
from app.contract.preprocessing import PreprocessingSpec, preprocess
from app.engines.loading import load_model
from benchmarks.harness.table import table
from benchmarks.harness.workload import of_12_megapixels
from benchmarks.training.trust import pictures_in
from training.evaluation.compare.paired import Paired


def measure(bundle: Bundle, data: Path, *, threads: int, say: Callable[[str], None]) -> str:
    """Return a table in Markdown. `data` has a folder of test pictures for each label."""
    spec = bundle.manifest.preprocessing
    labels = bundle.manifest.labels
    fields = spec.model_dump() | {"version": 2}
    whole = PreprocessingSpec(**fields | {"jpeg_scale": "full"})
    reduced = PreprocessingSpec(**fields | {"jpeg_scale": "reduced"})
    files = [file for file in pictures_in(data) if file.parent.name in labels]
    targets = np.array([labels.index(file.parent.name) for file in files])
    answers: dict[str, list[int]] = {
        "as they are": [],
        "enlarged, decoded whole": [],
        "enlarged, at a reduced scale": [],
    }
    loaded = load_model(bundle.path, threads=threads)
    try:
        for index, file in enumerate(files):
            picture = file.read_bytes()
            large = of_12_megapixels(picture)
            tensors = (preprocess(picture, spec), preprocess(large, whole), preprocess(large, reduced))
            for found, tensor in zip(answers.values(), tensors, strict=True):
                found.append(int(loaded.engine.predict(tensor[np.newaxis])[0].argmax()))
            if index % 50 == 0:
                say(f"{index:,} of {len(files):,}")
    finally:
        loaded.engine.close()
    right = {name: np.array(found) == targets for name, found in answers.items()}
    rows = [[name, f"{of.mean():.2%}", f"{int(of.sum())} of {len(of)}"] for name, of in right.items()]
    _, by_whole, by_reduced = right
    same = np.mean(np.array(answers[by_whole]) == np.array(answers[by_reduced]))
    paired = Paired.of(right[by_whole], right[by_reduced])
    said = f"The same label both ways: {same:.1%}. {paired.verdict('whole', 'reduced')}"
    return f"{table(['photos', 'accuracy', 'right'], rows)}\n\n{said}"
