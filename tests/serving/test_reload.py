"""The store changes under a service that answers. Each test looks by itself: nothing waits for a clock."""

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from app.contract.header import IMAGE_FORMATS
from app.errors import BundleNotFound, ModelNotFound, ModelNotNamed, ShuttingDown
from app.metrics import Metrics
from app.serving.admission import Admission
from app.serving.batcher import RowFuture
from app.serving.catalogue import Catalogue
from app.serving.classifier import Limits
from app.serving.store_watcher import Watcher
from app.serving.versions import LoadedStore, Loader, load_store
from app.system.folder_lock import taking_turns
from tests.holding import Held
from tests.serving.conftest import FolderLoader

PATIENT = 20


class Following:
    """A catalogue that follows a store; `look` is one look of its watcher, in a thread as in the service."""

    def __init__(
        self,
        loader: FolderLoader,
        loaded: LoadedStore,
        *,
        default: str | None = None,
        shutdown_grace_s: float = 5.0,
        interval_s: float = 0,
    ) -> None:
        self.metrics = Metrics()
        self.catalogue = Catalogue(
            loaded,
            default=default,
            admission=Admission(max_pictures=10, max_bytes=1 << 20, burst_s=5.0, metrics=self.metrics),
            limits=Limits(
                max_pixels=10_000, max_pending=10, accepted_formats=frozenset(IMAGE_FORMATS), inference_timeout_s=10.0
            ),
            metrics=self.metrics,
            give_up=lambda: None,
            decode_threads=1,
            shutdown_grace_s=shutdown_grace_s,
            retire_grace_s=5,
        )
        self.watcher = Watcher(cast("Loader", loader), loaded, self.catalogue, interval_s=interval_s)

    async def look(self, times: int = 1) -> None:
        for _ in range(times):
            await asyncio.to_thread(self.watcher.look)
        await asyncio.sleep(0)

    async def glance(self, times: int = 1) -> None:
        for _ in range(times):
            await asyncio.to_thread(self.watcher.glance)
        await asyncio.sleep(0)

    def live(self, name: str = "cats") -> int:
        return self.catalogue.get(name).manifest.version

    def refused(self) -> list[tuple[str, int | None, str]]:
        return [(rejection.name, rejection.version, rejection.code) for rejection in self.catalogue.rejections]

    def count(self, family: str) -> dict[tuple[str, ...], float]:
        return {labels: numbers[0] for labels, numbers in self.metrics.read()[family].items()}


def hold_back(loader: FolderLoader, version: int) -> None:
    (loader.store.root / "cats" / f"{version}.held").touch()


def publish_held_back(loader: FolderLoader, version: int) -> None:
    hold_back(loader, version)
    loader.publish("cats", version)


Follow = Callable[..., Awaitable[Following]]


async def with_a_preview(loader: FolderLoader, follow: Follow) -> Following:
    """Return a service whose version 1 is live and whose version 2, held back, is in preview."""
    loader.publish("cats", 1)
    service = await follow()
    publish_held_back(loader, 2)
    loader.store.begin_preview("cats", 2)
    await service.look(2)
    return service


@pytest.fixture
async def follow(folder_loader: FolderLoader) -> AsyncIterator[Follow]:
    """Start as the service does, and follow the store from there."""
    async with AsyncExitStack() as stack:

        async def start(**options: Any) -> Following:
            loaded = load_store(cast("Loader", folder_loader))
            folder_loader.loads.clear()
            following = Following(folder_loader, loaded, **options)
            await stack.enter_async_context(following.watcher)
            await stack.enter_async_context(following.catalogue)
            return following

        yield start


async def test_a_new_version_goes_live_when_two_looks_have_found_it_the_same(
    folder_loader: FolderLoader, follow: Follow
) -> None:
    folder_loader.publish("cats", 1)
    service = await follow()
    folder_loader.publish("cats", 2)
    await service.look()
    assert service.live() == 1
    await service.look()
    assert service.live() == 2
    await service.look(3)
    assert folder_loader.loads == [("cats", 2)]


async def test_the_version_before_is_freed_and_the_metrics_follow(folder_loader: FolderLoader, follow: Follow) -> None:
    folder_loader.publish("cats", 1)
    service = await follow()
    folder_loader.publish("cats", 2)
    await service.look(2)
    assert folder_loader.engines["cats", 1].closed
    assert not folder_loader.engines["cats", 2].closed
    info = service.count("imageclass_model_info")
    assert info == {("cats", "1", "openvino", "f32"): 0.0, ("cats", "2", "openvino", "f32"): 1.0}
    assert service.count("imageclass_model_loads") == {("cats", "1", "live"): 1.0, ("cats", "2", "live"): 1.0}


async def test_versions_are_loaded_in_a_thread_while_the_event_loop_turns(
    folder_loader: FolderLoader, follow: Follow
) -> None:
    folder_loader.publish("cats", 1)
    service = await follow()
    folder_loader.publish("cats", 2)
    await service.look()
    folder_loader.before_load = load = Held()
    looking = asyncio.create_task(service.look())
    await asyncio.to_thread(load.begun.wait, 60)
    assert service.live() == 1  # and this line runs: the load does not hold the event loop
    load.may_end.set()
    await looking
    assert service.live() == 2


async def test_what_was_accepted_before_the_swap_is_answered_by_the_version_that_took_it(
    folder_loader: FolderLoader, follow: Follow, data_folder: Path
) -> None:
    seven = (data_folder / "7-00000.png").read_bytes()
    folder_loader.publish("cats", 1)
    service = await follow()
    before = service.catalogue.get("cats")
    reply = RowFuture()
    folder_loader.publish("cats", 2)
    await service.look()
    model = folder_loader.load("cats", 2)
    before.put(seven, reply)
    assert await service.catalogue.replace(model)
    assert not folder_loader.engines["cats", 1].closed
    assert (await service.catalogue.get("cats").classify(seven))[0] == 2
    assert (await reply)[0] == 1
    await service.look()
    assert folder_loader.engines["cats", 1].closed


async def test_a_bundle_that_is_still_being_copied_is_not_tried(folder_loader: FolderLoader, follow: Follow) -> None:
    folder_loader.publish("cats", 1)
    service = await follow()
    folder = folder_loader.publish("cats", 2)
    for size in range(1, 6):
        (folder / "weights").write_bytes(b"x" * size)
        await service.look()
    assert folder_loader.loads == []
    await service.look()
    assert service.live() == 2


async def test_a_folder_without_a_manifest_is_never_tried_and_refused_in_the_end(
    folder_loader: FolderLoader, follow: Follow
) -> None:
    folder_loader.publish("cats", 1)
    service = await follow()
    (folder_loader.store.path("cats", 2)).mkdir()
    (folder_loader.store.path("cats", 2) / "saved_model.pb").write_bytes(b"x")
    await service.look(PATIENT - 1)
    assert service.refused() == []
    await service.look(PATIENT)
    assert service.refused() == [("cats", 2, "bundle_not_found")]
    assert (folder_loader.loads, service.live()) == ([], 1)
    folder_loader.publish("cats", 2)
    await service.look(2)
    assert (service.live(), service.refused()) == (2, [])


@pytest.mark.parametrize(
    ("manifest", "code"), [("half of it is missing", "bundle_tampered"), ("trouble", "internal_error")]
)
async def test_a_failing_version_is_rejected_once_and_retried_only_when_its_files_change(
    folder_loader: FolderLoader, follow: Follow, manifest: str, code: str
) -> None:
    folder_loader.publish("cats", 1)
    service = await follow()
    folder_loader.publish("cats", 2, manifest)
    with capture_logs() as log:
        await service.look(10)
    assert (service.live(), service.refused()) == (1, [("cats", 2, code)])
    assert folder_loader.loads == [("cats", 2)]
    (line,) = [line for line in log if line["event"] == "version refused"]
    assert (line["code"], line["version"]) == (code, 2)
    assert manifest in line["reason"]
    assert service.count("imageclass_model_loads")["cats", "2", code] == 1
    folder_loader.publish("cats", 2, "good now")
    await service.look(2)
    assert (service.live(), service.refused()) == (2, [])


async def test_the_version_below_a_refused_one_is_taken(folder_loader: FolderLoader, follow: Follow) -> None:
    folder_loader.publish("cats", 1)
    service = await follow()
    folder_loader.publish("cats", 2)
    folder_loader.publish("cats", 3, "bad")
    await service.look(4)
    assert (service.live(), service.refused()) == (2, [("cats", 3, "bundle_tampered")])


async def test_what_the_start_refused_is_not_tried_again(folder_loader: FolderLoader, follow: Follow) -> None:
    folder_loader.publish("cats", 1)
    folder_loader.publish("cats", 2, "bad")
    service = await follow()
    assert service.refused() == [("cats", 2, "bundle_tampered")]
    await service.look(4)
    assert folder_loader.loads == []
    folder_loader.publish("cats", 2, "good at last")
    await service.look(2)
    assert (service.live(), service.refused()) == (2, [])


async def test_a_pin_and_its_end_are_followed(folder_loader: FolderLoader, follow: Follow) -> None:
    for version in (1, 2, 3):
        folder_loader.publish("cats", version)
    service = await follow()
    folder_loader.store.pin("cats", 1)
    await service.look(2)
    assert service.live() == 1
    folder_loader.store.pin("cats", 2)
    await service.look(2)
    assert service.live() == 2
    folder_loader.store.unpin("cats")
    await service.look(2)
    assert service.live() == 3


async def test_a_version_in_preview_answers_who_names_it_beside_the_live_one(
    folder_loader: FolderLoader, follow: Follow
) -> None:
    service = await with_a_preview(folder_loader, follow)
    assert service.live() == 1
    assert service.catalogue.get("cats", "2").manifest.version == 2
    assert [model.manifest.version for model in service.catalogue.models] == [1]
    assert service.count("imageclass_model_loads")["cats", "2", "preview"] == 1
    folder_loader.store.end_preview("cats")
    await service.look()
    with pytest.raises(ModelNotFound, match="Version '2' of 'cats' is not live here"):
        service.catalogue.get("cats", "2")


async def test_a_version_in_preview_that_is_promoted_answers_without_a_pause(
    folder_loader: FolderLoader, follow: Follow
) -> None:
    service = await with_a_preview(folder_loader, follow)
    folder_loader.store.promote("cats", 2)
    assert folder_loader.store.preview("cats") is None
    await service.look()
    assert service.live() == 2
    assert service.catalogue.get("cats", "2") is service.catalogue.get("cats")
    assert service.catalogue.in_preview("cats") is None


async def test_a_preview_follows_its_mark_and_the_files_of_its_version(
    folder_loader: FolderLoader, follow: Follow
) -> None:
    for version in (1, 2, 3):
        folder_loader.publish("cats", version)
    service = await follow()
    for version in (1, 2):
        folder_loader.store.begin_preview("cats", version)
        await service.look(2)
        shown = service.catalogue.in_preview("cats")
        assert shown is not None
        assert (shown.manifest.version, service.live()) == (version, 3)
    folder_loader.publish("cats", 2, "good, and other")
    await service.look(2)
    replaced = service.catalogue.in_preview("cats")
    assert replaced is not None
    assert replaced is not shown
    folder_loader.store.pin("cats", 2)
    await service.look(2)
    assert (service.live(), service.catalogue.in_preview("cats")) == (2, None)


async def test_a_version_that_fails_is_rejected_as_a_preview_too(folder_loader: FolderLoader, follow: Follow) -> None:
    folder_loader.publish("cats", 2)
    service = await follow()
    folder_loader.publish("cats", 1, "broken")
    folder_loader.store.begin_preview("cats", 1)
    await service.look(4)
    assert service.refused() == [("cats", 1, "bundle_tampered")]
    assert service.catalogue.in_preview("cats") is None
    folder_loader.store.end_preview("cats")
    await service.look()
    assert service.refused() == []


@pytest.mark.parametrize("content", ["3\n", "no version\n"])
async def test_a_mark_that_names_no_version_there_ends_the_preview_with_one_warning(
    folder_loader: FolderLoader, follow: Follow, content: str
) -> None:
    folder_loader.publish("cats", 1)
    folder_loader.publish("cats", 2)
    service = await follow()
    folder_loader.store.begin_preview("cats", 1)
    await service.look(2)
    (folder_loader.store.root / "cats" / "preview").write_text(content)
    with capture_logs() as log:
        await service.look(3)
    assert service.catalogue.in_preview("cats") is None
    (warning,) = [line for line in log if line["log_level"] == "warning"]
    assert warning["model"] == "cats"
    assert service.live() == 2


async def test_a_pin_holds_a_newer_version_back(folder_loader: FolderLoader, follow: Follow) -> None:
    folder_loader.publish("cats", 1)
    folder_loader.store.pin("cats", 1)
    service = await follow()
    folder_loader.publish("cats", 2)
    await service.look(4)
    assert (service.live(), folder_loader.loads) == (1, [])


async def test_a_version_that_is_held_back_goes_live_when_it_is_promoted(
    folder_loader: FolderLoader, follow: Follow
) -> None:
    folder_loader.publish("cats", 1)
    service = await follow()
    publish_held_back(folder_loader, 2)
    await service.look(PATIENT)
    assert (service.live(), folder_loader.loads, service.refused()) == (1, [], [])
    folder_loader.store.promote("cats", 2)
    await service.look(2)
    assert service.live() == 2


async def test_a_pin_on_a_version_that_is_held_back_serves_it_until_it_is_unpinned(
    folder_loader: FolderLoader, follow: Follow
) -> None:
    folder_loader.publish("cats", 1)
    service = await follow()
    publish_held_back(folder_loader, 2)
    folder_loader.store.pin("cats", 2)
    await service.look(2)
    assert service.live() == 2
    folder_loader.store.unpin("cats")
    await service.look(2)
    assert service.live() == 1


async def test_a_live_version_that_is_held_back_by_hand_gives_way_but_not_to_nothing(
    folder_loader: FolderLoader, follow: Follow
) -> None:
    folder_loader.publish("cats", 1)
    folder_loader.publish("cats", 2)
    service = await follow()
    hold_back(folder_loader, 2)
    await service.look(2)
    assert service.live() == 1
    hold_back(folder_loader, 1)
    await service.look(PATIENT)
    assert service.live() == 1


async def test_a_damaged_version_that_is_held_back_is_neither_tried_nor_reported(
    folder_loader: FolderLoader, follow: Follow
) -> None:
    folder_loader.publish("cats", 1)
    service = await follow()
    folder_loader.publish("cats", 2, "broken")
    await service.look(2)
    assert service.refused() == [("cats", 2, "bundle_tampered")]
    hold_back(folder_loader, 2)
    await service.look()
    assert service.refused() == []


async def test_a_start_passes_over_what_is_held_back_and_leaves_out_a_model_without_more(
    folder_loader: FolderLoader, follow: Follow
) -> None:
    folder_loader.publish("cats", 1)
    publish_held_back(folder_loader, 2)
    folder_loader.publish("dogs", 1)
    (folder_loader.store.root / "dogs" / "1.held").touch()
    with capture_logs() as logs:
        service = await follow()
    assert service.live() == 1
    assert [model.name for model in service.catalogue.models] == ["cats"]
    (reason,) = [line["reason"] for line in logs if line["event"] == "model not served"]
    assert "Every version of dogs" in reason
    assert "models promote dogs VERSION" in reason
    hold_back(folder_loader, 1)
    with pytest.raises(BundleNotFound, match=r"Every version of cats in .* is held back"):
        load_store(cast("Loader", folder_loader))


@pytest.mark.parametrize("how", ["fails", "is not there", "names none"])
async def test_a_pin_that_cannot_be_followed_leaves_what_serves_and_says_so_once(
    folder_loader: FolderLoader, follow: Follow, how: str
) -> None:
    folder_loader.publish("cats", 1)
    folder_loader.publish("cats", 2)
    service = await follow()
    folder_loader.publish("cats", 3, "bad")
    pinned = {"fails": "3", "is not there": "7", "names none": "newest"}[how]
    (folder_loader.store.root / "cats" / "pinned").write_text(pinned)
    with capture_logs() as log:
        await service.look(6)
    assert service.live() == 2
    assert len([line for line in log if line["event"] == "version refused"]) == 1
    version = None if how == "names none" else int(pinned)
    assert [rejection[:2] for rejection in service.refused()] == [("cats", version)]
    folder_loader.store.pin("cats", 1)
    await service.look(2)
    assert service.live() == 1


async def test_a_start_with_an_unusable_pin_serves_the_newest_that_passes_and_says_so(
    folder_loader: FolderLoader, follow: Follow
) -> None:
    folder_loader.publish("cats", 1, "bad")
    folder_loader.publish("cats", 2)
    folder_loader.publish("cats", 3)
    folder_loader.store.pin("cats", 1)
    with capture_logs() as log:
        service = await follow()
    await service.look(3)
    assert (service.live(), service.refused()) == (3, [("cats", 1, "bundle_tampered")])
    assert {"event": "the pin is not followed", "model": "cats", "pinned": 1, "served": 3, "log_level": "error"} in log


async def test_the_newest_that_remains_takes_over_from_one_that_was_deleted(
    folder_loader: FolderLoader, follow: Follow
) -> None:
    for version in (1, 2, 3):
        folder_loader.publish("cats", version)
    service = await follow()
    shutil.rmtree(folder_loader.store.path("cats", 3))
    with capture_logs() as log:
        await service.look()
        assert service.live() == 3
        await service.look(2)
    assert service.live() == 2
    assert [line["event"] for line in log if line["log_level"] != "info"] == []


@pytest.mark.parametrize("gone", ["the versions", "the model", "the store"])
async def test_what_is_in_memory_serves_when_all_is_gone_with_one_warning(
    folder_loader: FolderLoader, follow: Follow, gone: str
) -> None:
    folder = folder_loader.publish("cats", 1)
    service = await follow()
    shutil.rmtree({"the versions": folder, "the model": folder.parent, "the store": folder.parents[1]}[gone])
    with capture_logs() as log:
        await service.look(5)
    assert service.live() == 1
    assert [line["log_level"] for line in log] == ["warning"]
    folder_loader.publish("cats", 2)
    await service.look(2)
    assert service.live() == 2


async def test_a_new_model_appears_and_then_a_request_must_name_one(
    folder_loader: FolderLoader, follow: Follow
) -> None:
    folder_loader.publish("cats", 1)
    service = await follow()
    assert service.catalogue.get().manifest.name == "cats"
    folder_loader.publish("dogs", 4)
    await service.look(2)
    assert service.live("dogs") == 4
    with pytest.raises(ModelNotNamed, match="cats, dogs"):
        service.catalogue.get()


async def test_a_new_model_leaves_the_one_that_was_set_as_default(folder_loader: FolderLoader, follow: Follow) -> None:
    folder_loader.publish("cats", 1)
    service = await follow(default="cats")
    folder_loader.publish("dogs", 1)
    await service.look(2)
    assert service.catalogue.get().manifest.name == "cats"
    assert [model.manifest.name for model in service.catalogue.models] == ["cats", "dogs"]


async def test_a_new_model_with_no_passing_version_is_rejected_also_at_the_start(
    folder_loader: FolderLoader, follow: Follow
) -> None:
    folder_loader.publish("cats", 1)
    folder_loader.publish("dogs", 1, "bad")
    service = await follow()
    await service.look(2)
    assert service.refused() == [("dogs", 1, "bundle_tampered")]
    assert [model.manifest.name for model in service.catalogue.models] == ["cats"]
    shutil.rmtree(folder_loader.store.root / "dogs")
    await service.look()
    assert service.refused() == []


async def test_a_live_version_whose_files_were_touched_is_left_alone(
    folder_loader: FolderLoader, follow: Follow
) -> None:
    folder_loader.publish("cats", 1)
    service = await follow()
    folder_loader.publish("cats", 1)
    await service.look(4)
    assert (folder_loader.loads, service.refused()) == ([], [])


async def test_a_live_version_that_is_damaged_on_disk_keeps_serving_and_says_so(
    folder_loader: FolderLoader, follow: Follow
) -> None:
    folder_loader.publish("cats", 1)
    service = await follow()
    folder_loader.publish("cats", 1, "overwritten")
    await service.look(4)
    assert (service.live(), folder_loader.loads) == (1, [])
    assert service.refused() == [("cats", 1, "bundle_tampered")]


async def test_a_glance_takes_up_a_new_version_and_every_mark(folder_loader: FolderLoader, follow: Follow) -> None:
    folder_loader.publish("cats", 1)
    service = await follow()
    await service.glance(10)
    folder_loader.publish("cats", 2)
    await service.glance(2)
    assert service.live() == 2
    folder_loader.store.pin("cats", 1)
    await service.glance(2)
    assert service.live() == 1
    folder_loader.store.unpin("cats")
    folder_loader.store.begin_preview("cats", 1)
    await service.glance(3)
    assert (service.live(), service.catalogue.in_preview("cats") is None) == (2, False)
    folder_loader.store.end_preview("cats")
    await service.glance()
    assert service.catalogue.in_preview("cats") is None
    folder_loader.publish("dogs", 1)
    await service.glance(2)
    assert service.live("dogs") == 1


async def test_what_is_overwritten_is_noticed_by_every_fourth_glance_or_if_somebody_waits(
    folder_loader: FolderLoader, follow: Follow
) -> None:
    folder_loader.publish("cats", 1)
    service = await follow()
    await service.look(2)
    await service.glance(4)  # the first one scans, because there is none before it
    folder_loader.publish("cats", 1, "overwritten")
    assert service.refused() == []
    await service.glance(3)
    assert service.refused() == [("cats", 1, "bundle_tampered")]
    folder_loader.publish("cats", 1)
    waiting = asyncio.create_task(service.watcher.next_look())
    await asyncio.sleep(0)
    await service.glance(2)
    await waiting
    assert service.refused() == []


async def test_a_live_version_that_was_replaced_by_another_bundle_is_loaded_again(
    folder_loader: FolderLoader, follow: Follow
) -> None:
    folder_loader.publish("cats", 1)
    service = await follow()
    folder_loader.publish("cats", 1, "good, but another")
    await service.look(4)
    assert folder_loader.loads == [("cats", 1)]
    assert service.catalogue.get("cats").manifest.training == {"text": "good, but another"}


async def test_a_version_that_is_ready_when_the_service_stops_is_freed(
    folder_loader: FolderLoader, follow: Follow
) -> None:
    folder_loader.publish("cats", 1)
    service = await follow()
    folder_loader.publish("cats", 2)
    await service.look()
    folder_loader.before_load = load = Held()
    looking = asyncio.create_task(service.look())
    await asyncio.to_thread(load.begun.wait, 60)
    await service.catalogue.aclose()
    load.may_end.set()
    await looking
    assert folder_loader.engines["cats", 2].closed


@pytest.mark.parametrize("iterations", range(8))
async def test_a_service_stops_in_whatever_moment_a_version_that_was_replaced_is_freed(
    folder_loader: FolderLoader, iterations: int
) -> None:
    folder_loader.publish("cats", 1)
    following = Following(folder_loader, load_store(cast("Loader", folder_loader)))
    folder_loader.publish("cats", 2)
    await following.catalogue.replace(folder_loader.load("cats", 2))
    for _ in range(iterations):
        await asyncio.sleep(0)
    await following.catalogue.aclose()
    assert all(engine.closed for engine in folder_loader.engines.values())


async def test_a_replaced_version_has_no_longer_than_the_grace_of_a_service_that_stops(
    folder_loader: FolderLoader, data_folder: Path
) -> None:
    folder_loader.on_event_loop = False
    folder_loader.publish("cats", 1)
    following = Following(folder_loader, load_store(cast("Loader", folder_loader)), shutdown_grace_s=0)
    folder_loader.engines["cats", 1].before_predict = predict = Held()
    folder_loader.publish("cats", 2)
    caller = asyncio.create_task(following.catalogue.get("cats").classify((data_folder / "7-00000.png").read_bytes()))
    await asyncio.to_thread(predict.begun.wait, 60)
    await following.catalogue.replace(folder_loader.load("cats", 2))
    await following.catalogue.aclose()
    with pytest.raises(ShuttingDown):
        await caller
    predict.may_end.set()
    assert all(engine.closed for engine in folder_loader.engines.values())


async def test_whoever_waits_for_a_look_is_told_that_the_service_stops(
    folder_loader: FolderLoader, follow: Follow
) -> None:
    folder_loader.publish("cats", 1)
    service = await follow()
    waiting = asyncio.create_task(service.watcher.next_look())
    await asyncio.sleep(0)
    await service.watcher.__aexit__(None, None, None)
    async with asyncio.timeout(10):
        with pytest.raises(ShuttingDown):
            await waiting
        with pytest.raises(ShuttingDown):
            await service.watcher.next_look()


async def test_refusals_are_shown_as_the_last_look_left_them(folder_loader: FolderLoader, follow: Follow) -> None:
    folder_loader.publish("cats", 1)
    service = await follow()
    folder_loader.publish("cats", 2, "bad")
    service.watcher.look()
    service.watcher.look()  # refuses it; the event loop has no time to hear of it
    shutil.rmtree(folder_loader.store.path("cats", 2))
    service.watcher.look()
    await asyncio.sleep(0)
    assert service.refused() == []


async def test_the_watcher_looks_by_itself_and_ends_with_the_service(folder_loader: FolderLoader) -> None:
    folder_loader.publish("cats", 1)
    loaded = load_store(cast("Loader", folder_loader))
    following = Following(folder_loader, loaded)
    watcher = Watcher(cast("Loader", folder_loader), loaded, following.catalogue, interval_s=0.001)
    begun = threading.Event()
    folder_loader.before_load = begun.set
    async with watcher, following.catalogue:
        folder_loader.publish("cats", 2)
        assert await asyncio.to_thread(begun.wait, 60)
    assert "reload" not in [thread.name for thread in threading.enumerate()]


def test_two_who_share_a_folder_take_turns(tmp_path: Path) -> None:
    never = threading.Event()
    order: list[str] = []
    first_is_in, second_asks = threading.Event(), threading.Event()

    def second() -> None:
        first_is_in.wait(60)
        second_asks.set()
        with taking_turns(tmp_path, never):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with taking_turns(tmp_path, never):
        first_is_in.set()
        second_asks.wait(60)
        thread.join(0.1)
        order.append("first")
    thread.join(60)
    assert order == ["first", "second"]


@pytest.mark.parametrize("how", ["it waits long enough", "it is to stop", "there is no such folder"])
def test_a_turn_that_does_not_come_is_not_waited_for_for_ever(tmp_path: Path, how: str) -> None:
    stop = threading.Event()
    if how == "it is to stop":
        stop.set()
    folder = tmp_path / "none" if how == "there is no such folder" else tmp_path
    with (
        taking_turns(tmp_path, threading.Event()),
        taking_turns(folder, stop, longest_wait_s=60 if how == "it is to stop" else 0.05),
    ):
        pass
