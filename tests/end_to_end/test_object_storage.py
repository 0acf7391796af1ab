"""A real service over a bucket of a real S3 server: new versions, outages, restarts, and pushes that are killed."""

import multiprocessing
import random
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.contract.bundle import open_bundle
from app.contract.location import BucketAddress, parse_location
from app.contract.store import ModelStore
from app.object_storage.mirror import Mirror, folder_at
from app.object_storage.store import BucketStore
from tests.end_to_end.callers import Callers, address_of, health, post
from tests.end_to_end.conftest import StartService
from tests.end_to_end.pages import opened, run, settings_of
from tests.photos import write_photos
from tests.s3_server import KEYS, S3Server
from tests.versions import version_of

WORKERS = 2
INTERVAL_S = 0.3
PROCESSES = multiprocessing.get_context("forkserver")
"""Forked from a process without threads: obstore's would not survive a fork of this one."""
PROCESSES.set_forkserver_preload(["obstore", "obstore.store", __name__])


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    return {"workers": WORKERS, "model_cache": tmp_path / "cache", "reload_interval_s": INTERVAL_S}


@pytest.fixture(scope="module")
def mnist(repository: Path) -> Path:
    return repository / "model_store" / "mnist" / "1"


@pytest.fixture(scope="module")
def picture(data_folder: Path) -> bytes:
    return post((data_folder / "7-00000.png").read_bytes())


def store_in_health(url: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{url}/health").json()["store"]
    return found


def live(url: str) -> list[int]:
    found: Any = health(url)[1]
    return [model["version"] for model in found["models"]]


def test_versions_are_followed_and_an_outage_and_a_restart_in_it_are_not_noticed(
    start_service: StartService,
    s3_server: S3Server,
    bucket: BucketAddress,
    settings: dict[str, Any],
    mnist: Path,
    picture: bytes,
    tmp_path: Path,
) -> None:
    remote = BucketStore(bucket)
    bundles = [version_of(mnist, number, tmp_path / "pushed") for number in (1, 2, 3)]
    remote.push(bundles[0], held_back=None)
    service = start_service(bucket, **settings)
    assert store_in_health(service.url)["reachable"] is True
    with Callers(lambda: address_of(service.url), picture) as callers:
        remote.push(bundles[1], held_back=None)
        service.wait_for_all("model live", count=WORKERS, version=2)
        with s3_server.outage():
            service.wait_for("object store not reachable")
            assert store_in_health(service.url) | {"since": ""} == {"kind": "s3", "reachable": False, "since": ""}
            callers.wait_for_answers(100)
            service.process.send_signal(signal.SIGHUP)  # new workers, which have only the copy
            service.wait_for("restarted")
            assert live(service.url) == [2]
            restarted = start_service(bucket, **settings)  # and another service of this machine
            assert live(restarted.url) == [2]
            assert store_in_health(restarted.url)["reachable"] is False
            assert restarted.stop() == 0
            callers.wait_for_answers(100)
        remote.push(bundles[2], held_back=None)
        service.wait_for_all("model live", count=WORKERS, version=3)
        assert store_in_health(service.url)["reachable"] is True
    assert callers.failed == {}
    assert service.stop() == 0
    pulled = [line["version"] for line in service.log if line["event"] == "version pulled"]
    assert pulled == [1, 2, 3]  # by one worker each
    log = str(service.log + restarted.log)
    assert not [secret for secret in (*KEYS, *KEYS.values()) if secret in log]


def test_the_commands_of_the_page_push_serve_and_list(
    start_service: StartService,
    s3_server: S3Server,
    bucket: BucketAddress,
    settings: dict[str, Any],
    repository: Path,
    picture: bytes,
) -> None:
    def ours(command: str) -> str:
        return command.replace("s3://models/store", bucket.url)

    with opened("docs/how-to/object-storage.md") as page:
        keys, push, serve, listed, _, _, pinned = page.commands()  # test_container_how_to.py runs the two between
    assert set(re.findall(r"(AWS_\w+)=", keys)) <= set(s3_server.environment)
    digest = re.findall(r"sha256:[0-9a-f]{64}", run(ours(push), repository))[0]
    assert "mnist" in run(ours(listed), repository)
    only = re.sub("sha256:.*", digest, ours(pinned))
    for command in (ours(serve), f"{only} make run"):
        address = parse_location(settings_of(command)["model_store"])
        service = start_service(address, **settings | {"workers": 1})
        assert live(service.url) == [1]
        assert service.stop() == 0


@pytest.mark.long
def test_the_commands_of_the_page_copy_and_train_between_stores(
    s3_server: S3Server, bucket: BucketAddress, mnist: Path, repository: Path, tmp_path: Path
) -> None:
    for version in (2, 3):
        version_of(mnist, version, tmp_path / "model_store")
    write_photos(tmp_path / "photos", ["cats", "dogs"], of_each=20)

    def ours(command: str, *more: str) -> None:
        words = " ".join([command.partition("#")[0].replace("s3://models/store", bucket.url), *more])
        run(words, tmp_path, PYTHONPATH=str(repository), XDG_CACHE_HOME=str(tmp_path / "cache"))

    with opened("docs/how-to/push-and-pull.md") as page:
        push, pull, pin, fit = page.commands()
    ours(push)
    ours(pull)
    assert ModelStore(tmp_path / "here").versions("mnist") == [3]
    ours(push.replace("--version 3", "--version 2"))
    ours(pin)
    ours(fit, "--preset seed --size 32 --epochs 2 --no-report")
    store = BucketStore(bucket)
    contents = store.contents()
    assert (contents.versions("mnist"), contents.versions("mine")) == ([2, 3], [1])
    assert store.pinned(contents, "mnist") == 2


def test_without_dns_what_was_pulled_before_is_served(
    start_service: StartService,
    bucket: BucketAddress,
    settings: dict[str, Any],
    mnist: Path,
    picture: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    BucketStore(bucket).push(version_of(mnist, 1, tmp_path / "pushed"), held_back=None)
    Mirror(bucket, folder_at(bucket, settings["model_cache"]), max_bytes=1 << 30).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://no-such-host.invalid")
    service = start_service(bucket, **settings | {"workers": 1})
    [warning] = [line for line in service.log if line["event"] == "object store not reachable"]
    assert "its name cannot be resolved. The versions that were pulled stay live." in warning["reason"]
    with Callers(lambda: address_of(service.url), picture) as callers:
        callers.wait_for_answers(300)
    assert callers.failed == {}
    assert store_in_health(service.url)["reachable"] is False


def test_a_new_version_is_there_within_two_looks(
    start_service: StartService,
    bucket: BucketAddress,
    settings: dict[str, Any],
    mnist: Path,
    tmp_path: Path,
) -> None:
    remote = BucketStore(bucket)
    remote.push(version_of(mnist, 1, tmp_path / "pushed"), held_back=None)
    service = start_service(bucket, **settings | {"reload_interval_s": 1})
    copy = folder_at(bucket, settings["model_cache"])
    state = copy.root / ".mirror" / "state.json"  # written at the end of each look
    for number in (2, 3):
        remote.push(version_of(mnist, number, tmp_path / "pushed"), held_back=None)
        ends = {state.stat().st_mtime_ns}
        while number not in copy.versions("mnist"):
            ends.add(state.stat().st_mtime_ns)
            time.sleep(0.005)
        assert len(ends) <= 2  # one look at most has ended without it
    service.wait_for_all("model live", count=WORKERS, version=3)


def test_a_service_without_credentials_or_bucket_ends_with_one_line(
    start_service: StartService, bucket: BucketAddress, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret-word")
    service = start_service(bucket, wait=False, **settings)
    assert service.wait() == 1
    [line] = [line for line in service.log if line["event"] == "cannot start"]
    assert line["reason"].startswith(f"{bucket.url} cannot be listed: the object store answers 403")
    assert "wrong-secret-word" not in str(service.log)


def test_pushes_that_are_killed_publish_nothing(
    start_service: StartService,
    bucket: BucketAddress,
    settings: dict[str, Any],
    mnist: Path,
    picture: bytes,
    tmp_path: Path,
    pytestconfig: pytest.Config,
) -> None:
    """Each push is a process of its own, killed at a random moment. What it left is there when the next one begins."""
    count, chance = pytestconfig.getoption("--torn-pushes"), random.Random(0)  # noqa: S311 - no secret
    remote = BucketStore(bucket)
    remote.push(version_of(mnist, 1, tmp_path / "pushed"), held_back=None)
    service = start_service(bucket, **settings)
    longest_s = seconds_of(bucket, version_of(mnist, 2, tmp_path / "pushed").path, kill_after_s=None)
    published = 2
    with Callers(lambda: address_of(service.url), picture, count=2) as callers:
        bundle = version_of(mnist, published + 1, tmp_path / "pushed")
        for _ in range(count):
            seconds_of(bucket, bundle.path, kill_after_s=chance.uniform(0, longest_s))
            versions = remote.contents().versions("mnist")
            assert versions in (list(range(1, published + 1)), list(range(1, published + 2)))
            if len(versions) > published:  # it was quicker than the signal
                published += 1
                bundle = version_of(mnist, published + 1, tmp_path / "pushed")
        service.wait_for_all("model live", count=WORKERS, version=published)
    assert callers.failed == {}
    assert service.stop() == 0
    events = [line["event"] for line in service.log]
    assert not {"version refused", "the object store is not followed", "model not served"} & set(events)
    answered = {body.partition(b'"version":')[2] for body in callers.bodies}
    sys.stdout.write(
        f"{count} pushes killed, {published - 2} of them after their last write; 0 partial versions served; "
        f"{callers.answered:,} requests answered by {len(answered)} versions, {sum(callers.failed.values())} failed\n"
    )


def seconds_of(address: BucketAddress, bundle: Path, *, kill_after_s: float | None) -> float:
    """Push in a process of its own, kill it after a time, and return how long that took."""
    process = PROCESSES.Process(target=push_it, args=(address, bundle))
    process.start()
    began = time.monotonic()
    process.join(kill_after_s)
    process.kill()
    process.join()
    return time.monotonic() - began


def push_it(address: BucketAddress, bundle: Path) -> None:
    BucketStore(address).push(open_bundle(bundle), held_back=None)
