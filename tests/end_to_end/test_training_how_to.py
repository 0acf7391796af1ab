"""The commands of pages about training and data, as they stand there, on few small pictures."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import httpx
import numpy as np
import pytest
from PIL import Image

from app.contract.store import ModelStore
from tests.end_to_end.callers import free_port
from tests.end_to_end.conftest import StartService
from tests.end_to_end.pages import as_here, opened, run
from tests.photos import photo, write_photos
from tests.versions import version_of

QUICKLY = "--preset seed --size 32 --epochs 2 --no-report"
CLASSES = ["dress", "shirt", "skirt"]


@pytest.fixture
def environment(repository: Path) -> dict[str, str]:
    """What a command needs to run in another folder than the repository."""
    return {"PYTHONPATH": str(repository)}


@pytest.fixture
def digits(mnist_pictures: list[tuple[Path, str]], tmp_path: Path) -> Path:
    """A folder with `mnist.npz`, a few of whose pictures are in `my-photos` as well."""
    for picture, label in mnist_pictures:
        (tmp_path / "my-photos" / label).mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, tmp_path / "my-photos" / label)
    pixels = np.stack([np.asarray(Image.open(picture).convert("L")) for picture, _ in mnist_pictures])
    labels = np.array([int(label) for _, label in mnist_pictures])
    train, test = np.s_[::2], np.s_[1::2]
    np.savez(
        tmp_path / "mnist.npz", x_train=pixels[train], y_train=labels[train], x_test=pixels[test], y_test=labels[test]
    )
    return tmp_path


def test_models_are_evaluated_and_compared(
    start_service: StartService, digits: Path, environment: dict[str, str], repository: Path
) -> None:
    bundle, store = repository / "model_store" / "mnist" / "1", digits / "model_store"
    for version in (1, 2):
        version_of(bundle, version, store)
    version_of(bundle, 1, store, name="mine")
    service = start_service(store, model="mnist")
    with opened("docs/how-to/compare-models.md") as page:
        here, by_service, compare = (
            run(command, digits, url=service.url, **environment) for command in page.commands()
        )
    count = len(list((digits / "my-photos").rglob("*.png"))) // 2  # the other half is to train on
    assert "accuracy 100.0000%" in here
    assert f"Compared with the bundle in process: the same label for {count} of {count} pictures" in by_service
    assert f"p = 1; {count} pictures cannot tell them apart." in compare


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with `my-pictures`, in which one picture has a wrong label and another one is in two classes."""
    folder = write_photos(tmp_path / "my-pictures", CLASSES, of_each=34)
    (folder / "skirt" / "wrong.jpg").write_bytes(photo(0, 9999))
    shutil.copy(folder / "shirt" / "3.jpg", folder / "dress" / "copy.jpg")
    return tmp_path


@contextmanager
def started(command: str, folder: Path, **environment: str) -> Iterator[IO[str]]:
    """Run a command that serves until it is interrupted. Yield what it prints."""
    with subprocess.Popen(
        ["bash", "-c", f"exec {as_here(command)}"],
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield process.stdout
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


def questions(review: str, folder: Path, **environment: str) -> int:
    """Return how many questions a review asks on the page whose address it prints."""
    with started(review, folder, **environment) as printed:
        count, address = printed.readline().split()[0], printed.readline().split()[-1]
        assert address.startswith("http://127.0.0.1")
        assert httpx.get(address, follow_redirects=True).status_code == 200
    return int(count)


def findings(folder: Path) -> dict[tuple[str, str], str]:
    """Return the sentence of each finding of an audit, by its check and its first picture."""
    found = json.loads((folder / "audit.json").read_text())["findings"]
    return {(each["check"], each["pictures"][0]): each["sentence"] for each in found}


@pytest.mark.long
def test_wrong_labels_are_found_shown_and_asked_about(pictures: Path, environment: dict[str, str]) -> None:
    with opened("docs/how-to/find-wrong-labels.md") as page:
        audit, threshold, review = page.commands()
    assert "audit/audit.html" in run(audit, pictures, **environment)
    found = findings(pictures / "audit")
    assert "looks like 'dress'" in found["wrong-label", "skirt/wrong.jpg"]
    assert ("conflict", "dress/copy.jpg") in found
    run(threshold, pictures, **environment)
    assert findings(pictures / "audit").keys() <= found.keys()
    assert questions(review, pictures, **environment) >= 2


@pytest.mark.long
def test_findings_and_mistakes_are_asked_about(pictures: Path, environment: dict[str, str]) -> None:
    run(f"python -m training fit --data my-pictures --name my-model {QUICKLY}", pictures, **environment)
    with opened("docs/how-to/correct-labels.md") as page:
        audit, review, with_mistakes = page.commands()
    run(audit, pictures, **environment)
    assert questions(with_mistakes, pictures, **environment) > questions(review, pictures, **environment) >= 1


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with `my-photos`, and the same as `my-pictures`."""
    write_photos(tmp_path / "my-photos", CLASSES, of_each=20)
    (tmp_path / "my-pictures").symlink_to("my-photos")
    return tmp_path


@pytest.mark.long
def test_a_run_that_was_killed_is_resumed_and_a_deterministic_one_repeated(
    photos: Path, environment: dict[str, str]
) -> None:
    store = ModelStore(photos / "model_store")
    with opened("docs/how-to/resume-and-reproduce.md") as page:
        resume, reproduce = (f"{command} {QUICKLY}" for command in page.commands())
    killed = subprocess.Popen(
        ["bash", "-c", f"exec {as_here(resume)} --epochs 5"],
        cwd=photos,
        env={**os.environ, **environment},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert killed.stderr is not None
    assert any(line.startswith("epoch 2/5") for line in killed.stderr)
    killed.kill()
    killed.communicate()
    assert (photos / "model_store" / "mine" / ".runs" / "1").is_dir()
    run(f"{resume} --epochs 5", photos, **environment)
    assert not (photos / "model_store" / "mine" / ".runs" / "1").exists()
    for _ in range(2):
        run(reproduce, photos, **environment)
    assert store.versions("mine") == [1, 2, 3]
    weights = [
        (store.path("mine", version) / "variables" / "variables.data-00000-of-00001").read_bytes() for version in (2, 3)
    ]
    assert weights[0] == weights[1]


@pytest.mark.long
def test_workers_that_know_each_other_train_one_model(photos: Path, environment: dict[str, str]) -> None:
    with opened("docs/how-to/several-gpus.md") as page:
        [command] = page.commands()
    for machine in ("10.0.0.1:2222", "10.0.0.2:2222"):
        command = command.replace(machine, f"127.0.0.1:{free_port()}")
    commands = [as_here(command.replace('"index": 0', f'"index": {index}')) for index in range(2)]
    workers = [
        subprocess.Popen(
            ["bash", "-c", f"{each} {QUICKLY}"],
            cwd=photos,
            env={**os.environ, **environment},
            stderr=subprocess.PIPE,
            text=True,
        )
        for each in commands
    ]
    for worker in workers:
        _, said = worker.communicate(timeout=300)
        assert worker.returncode == 0, said
    assert ModelStore(photos / "model_store").versions("mine") == [1]


@pytest.mark.long
def test_a_sweep_publishes_one_candidate(photos: Path, digits: Path, environment: dict[str, str]) -> None:
    with opened("docs/how-to/sweep.md") as page:
        chosen, tried = page.commands()
    run(chosen.replace("30m", "60s") + " --effort quick --size 96", photos, **environment)
    printed = run(tried.replace("10m", "20s"), digits, **environment)
    assert {"quick", "quick@0.002", "compact"} <= set(printed.split())
    store = ModelStore(photos / "model_store")
    assert (store.versions("mine"), store.versions("mnist")) == ([1], [1])
