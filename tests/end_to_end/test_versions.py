"""Deploys as their users meet them: a real service with two workers, asked all the while, and a store that changes."""

import http.client
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import httpx
import numpy as np
import pytest

from app.contract.bundle import GOLDEN_EXPECTED, MANIFEST
from app.contract.store import ModelStore
from tests.end_to_end.conftest import Service, StartService

PNG = {"content-type": "image/png"}
WORKERS = 2
CALLERS = 6
NEAR = 1e-5
"""By how much the answers of one version may differ: engines round batches of different sizes differently."""

Sign = Callable[[Path], None]


@pytest.fixture(scope="module")
def second(repository: Path, trained_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle digits/2: the same network from another seed, so that each of its answers tells it apart."""
    store = tmp_path_factory.mktemp("second") / "model_store"
    shutil.copytree(trained_store, store)
    options = [
        "--name",
        "digits",
        "--preset",
        "seed",
        "--epochs",
        "2",
        "--seed",
        "1",
        "--no-report",
        "--model-store",
        str(store),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "training", "fit", "--data", "digits", *options],
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return store / "digits" / "2"


@pytest.fixture(scope="module")
def pictures(data_folder: Path) -> list[bytes]:
    """Small pictures, which take the fast path, and a large one, which is read and decoded beside it."""
    small = [(data_folder / f"{name}.png").read_bytes() for name in ("7-00000", "2-00001", "1-00002", "4-00004")]
    noise = np.random.default_rng(0).integers(0, 256, (500, 500), np.uint8)
    return [*small, cv2.imencode(".png", noise)[1].tobytes()]


@dataclass
class Caller:
    """One client on one connection, without a second try: what it was answered, in order."""

    url: str
    pictures: list[bytes]
    path: str = "/predict"
    answers: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)

    def run(self, stop: threading.Event) -> None:
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=120)
        try:
            while not stop.is_set():
                for index, picture in enumerate(self.pictures):
                    connection.request("POST", self.path, picture, PNG)
                    response = connection.getresponse()
                    body = response.read()
                    if response.status != 200:
                        self.trouble.append(f"{response.status} {body!r}")
                        return
                    self.answers.append((index, json.loads(body)))
        except (OSError, http.client.HTTPException) as exc:
            self.trouble.append(repr(exc))
        finally:
            connection.close()


@contextmanager
def asked_all_the_while(service: Service, pictures: list[bytes]) -> Iterator[list[Caller]]:
    """Ask the service from several connections at once, as fast as it answers, while the block runs."""
    stop = threading.Event()
    callers = [Caller(service.url, pictures) for _ in range(CALLERS)]
    threads = [threading.Thread(target=caller.run, args=(stop,)) for caller in callers]
    for thread in threads:
        thread.start()
    try:
        yield callers
    finally:
        stop.set()
        for thread in threads:
            thread.join(120)


def wait_for_more(callers: list[Caller], more: int = 20) -> list[int]:
    """Return how many answers each has, when each has got `more` since now."""
    wanted = [len(caller.answers) + more for caller in callers]
    give_up = time.monotonic() + 120
    while any(len(caller.answers) < count for caller, count in zip(callers, wanted, strict=True)):
        assert time.monotonic() < give_up
        assert not [caller.trouble for caller in callers if caller.trouble]
        time.sleep(0.01)
    return [len(caller.answers) for caller in callers]


def known_answers(start_service: StartService, store: Path, pictures: list[bytes]) -> list[np.ndarray[Any, Any]]:
    service = start_service(store, workers=1)
    with httpx.Client(base_url=service.url) as client:
        answers = [
            client.post("/predict", content=picture, headers=PNG).json()["probabilities"] for picture in pictures
        ]
    assert service.stop() == 0
    return [np.array(list(answer.values())) for answer in answers]


def publish(bundle: Path, store: Path, version: int, change: Callable[[Path], None] = lambda _: None) -> float:
    """Build the bundle beside its place as this version, change it, rename it into place, and return the time."""
    building = store / "digits" / ".incoming"
    shutil.copytree(bundle, building)
    manifest = json.loads((building / MANIFEST).read_bytes())
    (building / MANIFEST).write_text(json.dumps({**manifest, "version": version}))
    change(building)
    building.rename(store / "digits" / str(version))
    return time.monotonic()


def publish_held_back(second: Path, store: Path) -> None:
    building = store / ".incoming"
    shutil.copytree(second, building)
    ModelStore(store).publish(building, "digits", 2, held_back="worse")


def models(*arguments: str, store: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app", "models", *arguments, "--model-store", str(store)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_new_version_and_a_rollback_under_load_lose_no_request_and_mix_no_answer(
    start_service: StartService,
    copy_of_store: Path,
    second: Path,
    pictures: list[bytes],
    record_property: Callable[[str, object], None],
) -> None:
    known = {1: known_answers(start_service, copy_of_store, pictures)}
    known[2] = known_answers(start_service, second.parents[1], pictures)
    assert all(np.abs(one - two).max() > 1000 * NEAR for one, two in zip(known[1], known[2], strict=True))
    service = start_service(copy_of_store, workers=WORKERS)

    with asked_all_the_while(service, pictures) as callers:
        wait_for_more(callers)
        published = publish(second, copy_of_store, 2)
        service.wait_for_all("model live", count=WORKERS, version=2)
        record_property("seconds_to_pickup", round(time.monotonic() - published, 2))
        all_on_second = wait_for_more(callers)
        # An answer may have been under way when the last worker changed; the one after it was not.
        settled = [
            [answer for _, answer in caller.answers[count:]]
            for caller, count in zip(callers, all_on_second, strict=True)
        ]
        wait_for_more(callers)
        asked = time.monotonic()
        assert models("rollback", "digits", store=copy_of_store).returncode == 0
        pinned = time.monotonic()
        service.wait_for_all("model live", count=WORKERS, version=1)
        record_property("seconds_to_rollback", round(time.monotonic() - pinned, 2))
        record_property("seconds_to_rollback_with_the_command", round(time.monotonic() - asked, 2))
        all_on_first = wait_for_more(callers)
        wait_for_more(callers)
        assert models("unpin", "digits", store=copy_of_store).returncode == 0
        service.wait_for_all("model live", count=WORKERS, version=2)
        wait_for_more(callers)

    assert not [caller.trouble for caller in callers if caller.trouble]
    assert all(answer["model"]["version"] == 2 for answers in settled for answer in answers)
    for caller, count in zip(callers, all_on_first, strict=True):
        assert caller.answers[count][1]["model"]["version"] == 1
    seen: set[int] = set()
    for caller in callers:
        for index, answer in caller.answers:
            version = answer["model"]["version"]
            seen.add(version)
            found = np.array(list(answer["probabilities"].values()))
            assert np.abs(found - known[version][index]).max() < NEAR
    assert seen == {1, 2}
    record_property("answers", sum(len(caller.answers) for caller in callers))
    assert service.stop() == 0


def test_bundles_that_cannot_be_trusted_are_refused_while_the_old_version_serves(
    start_service: StartService, copy_of_store: Path, second: Path, pictures: list[bytes], sign: Sign
) -> None:
    def corrupt(bundle: Path) -> None:
        weights = bundle / "variables" / "variables.data-00000-of-00001"
        content = bytearray(weights.read_bytes())
        content[len(content) // 2] ^= 0xFF
        weights.write_bytes(content)

    def half_copied(bundle: Path) -> None:
        shutil.rmtree(bundle / "variables")

    def incompatible(bundle: Path) -> None:
        manifest = json.loads((bundle / MANIFEST).read_bytes())
        (bundle / MANIFEST).write_text(json.dumps({**manifest, "schema_version": 99}))

    def lying(bundle: Path) -> None:
        with np.load(bundle / GOLDEN_EXPECTED) as expected:
            changed = {**expected, "probabilities": expected["probabilities"][::-1]}
        np.savez(bundle / GOLDEN_EXPECTED, **changed)
        sign(bundle)

    cases = [
        (2, corrupt, "bundle_tampered"),
        (3, half_copied, "bundle_tampered"),
        (4, incompatible, "bundle_incompatible"),
        (5, lying, "self_check_failed"),
    ]
    # On one engine: `auto` would try the bundle that lies on TensorFlow too, whose import under load takes long.
    service = start_service(copy_of_store, workers=WORKERS, engine="openvino")
    with asked_all_the_while(service, pictures) as callers:
        for version, change, code in cases:
            publish(second, copy_of_store, version, change)
            lines = service.wait_for_all("version refused", count=WORKERS, version=version)
            assert [line["code"] for line in lines] == [code] * WORKERS
            assert all(f"digits/{version}" in line["reason"] for line in lines)
            wait_for_more(callers)
        assert all(answer["model"]["version"] == 1 for caller in callers for _, answer in caller.answers)
        health = httpx.get(f"{service.url}/health").json()
        assert health["refused"] == [{"name": "digits", "version": version, "code": code} for version, _, code in cases]
        publish(second, copy_of_store, 6)
        service.wait_for_all("model live", count=WORKERS, version=6)
        wait_for_more(callers)
    assert not [caller.trouble for caller in callers if caller.trouble]
    assert service.stop() == 0
    refused = [line["version"] for line in service.log if line["event"] == "version refused"]
    assert sorted(refused) == sorted([version for version, *_ in cases] * WORKERS), "each once for each worker"


def test_a_version_that_is_held_back_answers_nothing_until_it_is_promoted(
    start_service: StartService, copy_of_store: Path, second: Path, pictures: list[bytes]
) -> None:
    service = start_service(copy_of_store, workers=WORKERS)
    with asked_all_the_while(service, pictures) as callers:
        publish_held_back(second, copy_of_store)
        # When a version that came later is refused, every worker has looked at the store.
        publish(second, copy_of_store, 3, lambda bundle: (bundle / "saved_model.pb").unlink())
        service.wait_for_all("version refused", count=WORKERS, version=3)
        wait_for_more(callers)
        assert {answer["model"]["version"] for caller in callers for _, answer in caller.answers} == {1}
        assert models("promote", "digits", "2", store=copy_of_store).returncode == 0
        service.wait_for_all("model live", count=WORKERS, version=2)
        wait_for_more(callers)
        settled = wait_for_more(callers)
        wait_for_more(callers)
    assert not [caller.trouble for caller in callers if caller.trouble]
    assert {
        answer["model"]["version"]
        for caller, count in zip(callers, settled, strict=True)
        for _, answer in caller.answers[count:]
    } == {2}
    assert service.stop() == 0


def test_a_version_in_preview_answers_whoever_names_it_by_every_protocol(
    start_service: StartService, copy_of_store: Path, second: Path, pictures: list[bytes]
) -> None:
    service = start_service(copy_of_store, workers=WORKERS)
    with asked_all_the_while(service, pictures) as callers:
        publish_held_back(second, copy_of_store)
        assert models("preview", "digits", "2", store=copy_of_store).returncode == 0
        service.wait_for_all("model in preview", count=WORKERS, version=2)
        wait_for_more(callers)
    assert not [caller.trouble for caller in callers if caller.trouble]
    assert {answer["model"]["version"] for caller in callers for _, answer in caller.answers} == {1}
    with httpx.Client(base_url=service.url, headers=PNG) as client:
        (listed,) = client.get("/models").json()["models"]
        detail = client.get("/models/digits", params={"version": 2}).json()
        answers = [
            client.post("/predict?model=digits&version=2", content=pictures[0]).json(),
            client.post("/predict?version=2&top_k=10", content=pictures[-1]).json(),
            client.post("/explain?version=2", content=pictures[0]).json(),
        ]
        files = [("files", ("7.png", pictures[0], "image/png"))]
        answers.append(httpx.post(f"{service.url}/predict/batch?version=2", files=files).json())
        status = client.get("/v1/models/digits/versions/2").json()["model_version_status"]
        ready = client.get("/v2/models/digits/versions/2/ready").status_code
        index = client.post("/v2/repository/index", json={"ready": True}).json()
        missing = client.post("/predict?version=3", content=pictures[0])
        unusable = client.post("/predict?version=0", content=pictures[0])
    assert (listed["version"], listed["preview"]["version"], detail["version"]) == (1, 2, 2)
    assert "preview" not in detail
    assert [answer["model"]["version"] for answer in answers] == [2] * 4
    assert (status[0]["version"], ready) == ("2", 200)
    assert [entry["version"] for entry in index] == ["1", "2"]
    assert (missing.status_code, missing.json()["code"]) == (404, "model_not_found")
    assert unusable.status_code == 400
    assert models("preview", "digits", "--end", store=copy_of_store).returncode == 0
    service.wait_for_all("preview ended", count=WORKERS, version=2)
    assert httpx.post(f"{service.url}/predict?version=2", content=pictures[0], headers=PNG).status_code == 404
    assert service.stop() == 0


def test_a_bundle_that_is_copied_slowly_is_taken_when_it_is_whole(
    start_service: StartService, copy_of_store: Path, second: Path, pictures: list[bytes]
) -> None:
    service = start_service(copy_of_store, workers=WORKERS)
    place = copy_of_store / "digits" / "2"
    files = sorted(file for file in second.rglob("*") if file.is_file())
    with asked_all_the_while(service, pictures) as callers:
        for file in files:
            (place / file.relative_to(second)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place / file.relative_to(second))
            wait_for_more(callers, 5)
        service.wait_for_all("model live", count=WORKERS, version=2)
        wait_for_more(callers)
    assert not [caller.trouble for caller in callers if caller.trouble]
    assert service.stop() == 0


def test_a_version_that_is_deleted_gives_way_and_the_last_one_serves_from_memory(
    start_service: StartService, copy_of_store: Path, second: Path, pictures: list[bytes]
) -> None:
    shutil.copytree(second, copy_of_store / "digits" / "2")
    service = start_service(copy_of_store, workers=WORKERS)
    with asked_all_the_while(service, pictures) as callers:
        shutil.rmtree(copy_of_store / "digits" / "2")
        service.wait_for_all("model live", count=WORKERS, version=1)
        shutil.rmtree(copy_of_store)
        lines = service.wait_for_all("the model store has changed", count=WORKERS)
        assert all("in memory" in line["reason"] for line in lines)
        wait_for_more(callers)
    assert not [caller.trouble for caller in callers if caller.trouble]
    assert service.stop() == 0
    assert len([line for line in service.log if line["level"] == "warning"]) == WORKERS


def test_a_start_whose_pin_cannot_be_followed_serves_and_says_so(
    start_service: StartService, copy_of_store: Path, pictures: list[bytes]
) -> None:
    (copy_of_store / "digits" / "pinned").write_text("7\n")
    service = start_service(copy_of_store)
    assert httpx.post(f"{service.url}/predict", content=pictures[0], headers=PNG).json()["model"]["version"] == 1
    health = httpx.get(f"{service.url}/health").json()
    assert health["refused"] == [{"name": "digits", "version": 7, "code": "bundle_not_found"}]
    assert [line["pinned"] for line in service.log if line["event"] == "the pin is not followed"] == [7]
    assert service.stop() == 0


def test_a_store_that_is_not_to_be_followed_is_not(
    start_service: StartService, copy_of_store: Path, second: Path, pictures: list[bytes]
) -> None:
    service = start_service(copy_of_store, reload_interval_s=0)
    publish(second, copy_of_store, 2)
    with asked_all_the_while(service, pictures) as callers:
        wait_for_more(callers, 200)
    assert all(answer["model"]["version"] == 1 for caller in callers for _, answer in caller.answers)
    assert service.stop() == 0
