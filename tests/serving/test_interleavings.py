"""Callers, replaced versions and the end of the service, each in whatever moment a seed of the shuffling loop finds."""

import asyncio
import random
from pathlib import Path
from typing import cast

import pytest

from app.contract.header import IMAGE_FORMATS
from app.errors import ShuttingDown
from app.metrics import Metrics
from app.serving.admission import Admission
from app.serving.catalogue import Catalogue
from app.serving.classifier import Limits
from app.serving.versions import Loader, load_store
from tests.serving.conftest import FolderLoader
from tests.serving.places import places
from tests.shuffling import ShufflingLoop

CALLERS = 12


@pytest.mark.parametrize("inline_decode_pixels", [0, 1000], ids=["decoded in the pool", "decoded in the batch"])
@pytest.mark.parametrize("on_event_loop", [True, False], ids=["run on the loop", "run in a thread"])
@pytest.mark.parametrize("grace_s", [0.0, 30.0], ids=["without a grace", "with a grace"])
def test_every_caller_is_answered_and_every_version_freed_however_it_falls_out(
    folder_loader: FolderLoader,
    data_folder: Path,
    on_event_loop: bool,
    inline_decode_pixels: int,
    grace_s: float,
    shuffle_seeds: range,
) -> None:
    folder_loader.on_event_loop = on_event_loop
    folder_loader.inline_decode_pixels = inline_decode_pixels
    seven = (data_folder / "7-00000.png").read_bytes()
    for version in (1, 2, 3):
        folder_loader.publish("cats", version)

    async def serve(choices: random.Random) -> None:
        metrics = Metrics()
        admission = Admission(max_pictures=CALLERS, max_bytes=1 << 20, burst_s=5.0, metrics=metrics)
        folder_loader.engines.clear()
        catalogue = Catalogue(
            load_store(cast("Loader", folder_loader)),
            default=None,
            admission=admission,
            limits=Limits(
                max_pixels=10_000,
                max_pending=CALLERS,
                accepted_formats=frozenset(IMAGE_FORMATS),
                inference_timeout_s=10.0,
            ),
            metrics=metrics,
            give_up=lambda: None,
            decode_threads=1,
            shutdown_grace_s=grace_s,
            retire_grace_s=grace_s,
        )

        async def moment() -> None:
            """Return in any of the next iterations."""
            for _ in range(choices.randrange(6)):
                await asyncio.sleep(0)
            await asyncio.to_thread(int)

        async def call() -> float | None:
            await moment()
            with places(admission):
                row = await catalogue.get("cats").classify(seven)
            return float(row[0])

        async def hang_up(caller: asyncio.Task[float | None]) -> None:
            await moment()
            caller.cancel()

        async def replace(version: int) -> None:
            await moment()
            model = folder_loader.load("cats", version)
            if not await catalogue.replace(model):
                model.loaded.engine.close()

        async def end() -> None:
            await moment()
            await catalogue.aclose()

        callers = [asyncio.create_task(call()) for _ in range(CALLERS)]
        others = [hang_up(caller) for caller in callers[:3]] + [replace(1), replace(2), end()]
        async with asyncio.timeout(20):
            await asyncio.gather(*others)
            answers = await asyncio.gather(*callers, return_exceptions=True)
        for caller, answer in zip(callers, answers, strict=True):
            assert answer in (1.0, 2.0, 3.0) or isinstance(answer, ShuttingDown) or caller in callers[:3]
        assert all(engine.closed for engine in folder_loader.engines.values())
        assert (admission.pending, admission.pending_bytes) == (0, 0)

    for seed in shuffle_seeds:
        with asyncio.Runner(loop_factory=lambda seed=seed: ShufflingLoop(seed)) as runner:  # type: ignore[misc]
            runner.run(serve(random.Random(seed)))  # noqa: S311 - nothing is kept secret
