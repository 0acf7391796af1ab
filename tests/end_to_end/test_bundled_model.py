"""The model that the project brings along, on real pictures."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from app.contract.bundle import open_bundle


@pytest.fixture(scope="module")
def bundle_path(repository: Path) -> Path:
    return repository / "model_store" / "mnist" / "1"


def predicted(repository: Path, files: list[Path]) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "app", "predict", "--json", "--model", "mnist", *map(str, files)]
    store = ["--model-store", str(repository / "model_store")]
    done = subprocess.run([*command, *store], capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_it_reads_light_digits_on_dark_and_dark_on_light_alike(
    repository: Path, mnist_pictures: list[tuple[Path, str]], tmp_path: Path
) -> None:
    inverted = []
    for path, _ in mnist_pictures:
        inverted.append(tmp_path / path.name)
        digit = np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), np.uint8)
        cv2.imwrite(str(inverted[-1]), 255 - digit)
    originals = predicted(repository, [path for path, _ in mnist_pictures])
    turned = predicted(repository, inverted)
    assert [answer["probabilities"] for answer in turned] == [answer["probabilities"] for answer in originals]
    right = sum(answer["label"] == label for answer, (_, label) in zip(originals, mnist_pictures, strict=True))
    assert right >= 0.985 * len(mnist_pictures)


@pytest.mark.parametrize(("paper", "ink", "thickness"), [(255, 0, 24), (255, 40, 8), (170, 60, 26)])
def test_it_reads_a_large_drawing_on_paper(
    repository: Path, tmp_path: Path, paper: int, ink: int, thickness: int
) -> None:
    sheet = np.full((400, 400), paper, np.uint8)
    cv2.putText(sheet, "5", (100, 320), cv2.FONT_HERSHEY_SIMPLEX, 10, ink, thickness, cv2.LINE_AA)
    uneven_light = np.linspace(-30, 30, 400)[None] + np.random.default_rng(0).normal(0, 5, sheet.shape)
    cv2.imwrite(str(tmp_path / "five.jpg"), np.clip(sheet + uneven_light, 0, 255).astype(np.uint8))
    (answer,) = predicted(repository, [tmp_path / "five.jpg"])
    assert answer["label"] == "5"


def test_it_is_small_and_says_what_it_is(bundle_path: Path) -> None:
    bundle = open_bundle(bundle_path)
    assert sum(file.stat().st_size for file in bundle_path.rglob("*") if file.is_file()) < 2_000_000
    assert bundle.manifest.metrics["test.accuracy"] >= 0.985
    for word in ("MNIST", "CC BY-SA", "python -m training fit", "Limits", "99."):
        assert word in bundle.card()
