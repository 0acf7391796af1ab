"""What the tests of training share: a few pictures, for all that need a training and not a good one."""

from pathlib import Path

import numpy as np
import pytest

from tests.training.audit.conftest import scene, write

_OF_EACH_CLASS = 20


@pytest.fixture(scope="session")
def few_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty of scikit-learn's digits of each class, in a file: a fit takes less than half as long as on all."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    kept = np.sort(np.concatenate([np.flatnonzero(digits.target == label)[:_OF_EACH_CLASS] for label in range(10)]))
    file = tmp_path_factory.mktemp("digits") / "digits.npz"
    np.savez(file, x_train=images[kept], y_train=digits.target[kept])
    return file


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Twelve pictures in each of two classes, with nothing wrong."""
    for row in range(24):
        write(tmp_path / "pets" / ("cats" if row % 2 else "dogs") / f"{row:02}.png", scene(row))
    return tmp_path / "pets"
