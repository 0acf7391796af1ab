"""Bundles that earlier releases wrote load and answer as they did: one of each schema is kept."""

from pathlib import Path

import numpy as np
import pytest

from app.engines.loading import load_model
from app.engines.registry import ENGINES, EngineName
from tests.contract.kept_bundle import OTHER_OUTPUTS, SPEC

FIRST, SECOND = Path("tests/data/bundles/mnist/1"), Path("tests/data/bundles/clothes/1")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("path", "schema", "spec_version"), [(FIRST, 1, 1), (SECOND, 2, 2)])
def test_the_kept_bundle_of_each_schema_gives_its_own_answers(
    repository: Path, path: Path, schema: int, spec_version: int, engine: EngineName
) -> None:
    model = load_model(repository / path, engine=engine)
    manifest, golden = model.bundle.manifest, model.bundle.golden
    assert (manifest.schema_version, manifest.preprocessing.version) == (schema, spec_version)
    count = len(golden.names)
    assert model.proof.pictures == count
    for size in (1, count):
        model.engine.prepare(size)
        batches = [model.engine.predict(golden.images[at : at + size]) for at in range(0, count, size)]
        np.testing.assert_allclose(np.concatenate(batches), golden.probabilities, atol=1e-5)
    model.engine.close()


def test_the_kept_bundle_of_the_second_schema_has_all_that_this_adds(repository: Path) -> None:
    manifest = load_model(repository / SECOND).bundle.manifest
    assert manifest.preprocessing == SPEC
    assert manifest.preprocessing.jpeg_scale == "reduced"
    assert manifest.signature.other_outputs == OTHER_OUTPUTS
