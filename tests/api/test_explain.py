"""POST /explain: what it answers, where its map lies, and what it costs those who wait beside it."""

import asyncio
import io
import json
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Literal

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow

from app.api.openapi.schemas import ExplanationAnswer
from app.contract.preprocessing import Image
from app.settings import Settings
from tests.api.conftest import OpenClient, running
from tests.api.test_predict import assert_error
from tests.known_network import LABELS, PLACES, Colours, store_of

OpenKnown = Callable[..., Any]
PNG = {"content-type": "image/png"}
TO_STORED = {
    2: Pillow.Transpose.FLIP_LEFT_RIGHT,
    3: Pillow.Transpose.ROTATE_180,
    4: Pillow.Transpose.FLIP_TOP_BOTTOM,
    5: Pillow.Transpose.TRANSPOSE,
    6: Pillow.Transpose.ROTATE_90,
    7: Pillow.Transpose.TRANSVERSE,
    8: Pillow.Transpose.ROTATE_270,
}
"""How an upright picture lies in a file of each EXIF orientation."""


@pytest.fixture
async def open_known(repository: Path) -> AsyncIterator[OpenKnown]:
    """Serve the network whose answers are known."""
    async with AsyncExitStack() as stack:

        async def start(engine: Colours | None = None, settings: dict[str, Any] | None = None, **options: Any) -> Any:
            bundle = repository / "model_store" / "mnist" / "1"
            store = store_of(bundle, engine or Colours(), **options)
            given = Settings(
                model_store=repository / "model_store", model="mnist", reload_interval_s=0, **(settings or {})
            )
            return await stack.enter_async_context(running(given, store))

        yield start


def picture_with(
    *squares: tuple[str, int, int], width: int = 120, height: int = 80, orientation: int = 1, kind: str = "PNG"
) -> bytes:
    """Return a black picture with squares of 16 pixels in a colour, each at a left and upper edge."""
    pixels = np.zeros((height, width, 3), np.uint8)
    for colour, left, top in squares:
        pixels[top : top + 16, left : left + 16, LABELS.index(colour)] = 255
    upright = Pillow.fromarray(pixels)
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    out = io.BytesIO()
    (upright.transpose(TO_STORED[orientation]) if orientation > 1 else upright).save(out, kind, exif=exif)
    return out.getvalue()


def hottest(explanation: dict[str, Any], width: int, height: int) -> tuple[float, float]:
    """Return the pixel of the upright picture in the middle of the map's hottest place, as a page would lay it."""
    grid, box = np.array(explanation["map"]), explanation["box"]
    row, column = np.unravel_index(grid.argmax(), grid.shape)
    return (
        (box["left"] + box["width"] * (column + 0.5) / grid.shape[1]) * width,
        (box["top"] + box["height"] * (row + 0.5) / grid.shape[0]) * height,
    )


async def explained(client: httpx.AsyncClient, picture: bytes, **query: Any) -> dict[str, Any]:
    answer = await client.post("/explain", content=picture, headers=PNG, params=query)
    assert answer.status_code == 200, answer.text
    ExplanationAnswer.model_validate(answer.json())
    return dict(answer.json())


async def test_an_explanation_is_the_prediction_and_the_map_of_the_predicted_label(open_known: OpenKnown) -> None:
    client = await open_known()
    picture = picture_with(("green", 40, 32), ("red", 70, 8), ("green", 8, 8))
    predicted = (await client.post("/predict", content=picture, headers=PNG)).json()
    answer = await explained(client, picture)
    explanation = answer.pop("explanation")
    assert answer == predicted
    assert (explanation["label"], explanation["probability"]) == ("green", predicted["probability"])
    assert (explanation["method"], explanation["masks"]) == ("cam", 0)
    grid = np.array(explanation["map"])
    assert grid.shape == (PLACES, PLACES)
    other = np.array((await explained(client, picture, label="red"))["explanation"]["map"])
    logits = grid.mean() - other.mean()  # the mean of a map is its label's logit
    assert logits == pytest.approx(np.log(answer["probabilities"]["green"] / answer["probabilities"]["red"]), rel=1e-4)


@pytest.mark.parametrize("maps", [True, False], ids=["cam", "rise"])
@pytest.mark.parametrize("resize", ["stretch", "pad", "crop"])
async def test_the_map_lies_where_the_thing_is(
    open_known: OpenKnown, resize: Literal["stretch", "pad", "crop"], maps: bool
) -> None:
    client = await open_known(resize=resize, maps=maps)
    for label, left, top in (("red", 80, 56), ("blue", 24, 8)):
        picture = picture_with(("red", 80, 56), ("blue", 24, 8))
        explanation = (await explained(client, picture, label=label))["explanation"]
        assert explanation["method"] == ("cam" if maps else "rise")
        x, y = hottest(explanation, 120, 80)
        assert left - 8 <= x <= left + 24
        assert top - 8 <= y <= top + 24


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
async def test_the_map_lies_in_the_upright_picture_in_every_orientation(
    open_known: OpenKnown, orientation: int, kind: str
) -> None:
    client = await open_known(resize="crop")
    picture = picture_with(("red", 72, 8), orientation=orientation, kind=kind)
    x, y = hottest((await explained(client, picture))["explanation"], 120, 80)
    assert 68 <= x <= 92
    assert 4 <= y <= 28


async def test_as_png_the_map_is_drawn_over_the_picture_that_was_sent(open_known: OpenKnown) -> None:
    client = await open_known(resize="crop")
    picture = picture_with(("green", 40, 32), width=1200, height=800)
    answer = await client.post("/explain?format=png", files={"file": picture})
    assert answer.headers["content-type"] == "image/png"
    drawn = np.asarray(Pillow.open(io.BytesIO(answer.content)))
    assert drawn.shape == (341, 512, 3)
    assert drawn[200:, :80].max() == 0  # what a network does not see is dark
    small = await client.post("/explain?format=png", content=picture_with(("green", 40, 32)), headers=PNG)
    drawn = np.asarray(Pillow.open(io.BytesIO(small.content))).astype(int)
    assert drawn.shape == (160, 240, 3)
    assert drawn[80, 96, 0] > 2 * drawn[20, 200, 0]  # hot is red
    about = json.loads(small.headers["x-explanation"])
    whole = (await explained(client, picture_with(("green", 40, 32))))["explanation"]
    assert about == {name: value for name, value in whole.items() if name != "map"}


async def test_as_npy_the_map_is_as_numpy_saves_it(open_known: OpenKnown) -> None:
    client = await open_known()
    picture = picture_with(("blue", 40, 32))
    answer = await client.post("/explain?format=npy", content=picture, headers=PNG)
    saved = np.load(io.BytesIO(answer.content))
    assert saved.dtype == np.float32
    np.testing.assert_array_equal(saved, np.float32((await explained(client, picture))["explanation"]["map"]))


@pytest.mark.parametrize(
    ("query", "content", "status", "code"),
    [
        ("label=purple", picture_with(), 400, "malformed_request"),
        ("format=svg", picture_with(), 400, "malformed_request"),
        ("model=cats", picture_with(), 404, "model_not_found"),
        ("", b"%PDF-1.7", 415, "unsupported_format"),
        ("", picture_with()[:60], 422, "undecodable_image"),
        ("", b"", 422, "undecodable_image"),
    ],
)
async def test_what_cannot_be_explained_has_the_errors_of_a_prediction(
    open_known: OpenKnown, query: str, content: bytes, status: int, code: str
) -> None:
    client = await open_known(settings={"max_pixels": 10_000})
    assert_error(await client.post(f"/explain?{query}", content=content, headers=PNG), status, code)
    large = picture_with(width=200, height=200)
    assert_error(await client.post("/explain", content=large, headers=PNG), 413, "image_too_large")


async def test_a_service_may_explain_nothing(open_client: OpenClient) -> None:
    client = await open_client(max_explanations=0)
    answer = await client.post("/explain", content=picture_with(), headers=PNG)
    assert_error(answer, 403, "explanations_off")
    assert "IMAGECLASS_MAX_EXPLANATIONS" in answer.json()["error"]


class Held(Colours):
    """Runs a batch each time that it is let, and remembers how many pictures of it were whole ones."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.let = threading.Semaphore(0)
        self.whole: list[int] = []

    def predict(self, batch: Image) -> NDArray[np.float32]:
        self.entered.release()
        assert self.let.acquire(timeout=30)
        self.whole.append(len({picture.tobytes() for picture in batch if picture.max() == 255}))
        return super().predict(batch)

    async def has_entered(self) -> None:
        await asyncio.to_thread(self.entered.acquire)


async def test_predictions_wait_for_one_masked_picture_at_most(open_known: OpenKnown) -> None:
    engine = Held()
    client = await open_known(engine, maps=False, on_event_loop=False)
    mixed = picture_with(*(("red", left, top) for left in range(0, 120, 20) for top in range(0, 80, 20)))
    explaining = asyncio.create_task(client.post("/explain", content=mixed, headers=PNG))
    for _ in range(3):  # the prediction, and two masked pictures
        await engine.has_entered()
        engine.let.release()
    await engine.has_entered()
    predictions = [
        asyncio.create_task(client.post("/predict", content=picture_with(("red", 8 * index, 8)), headers=PNG))
        for index in range(4)
    ]
    for _ in range(10_000):  # FastAPI reads their queries in threads
        if client_waiting(client) == 5:
            break
        await asyncio.sleep(0.001)
    runs = len(engine.whole)
    for _ in range(2):  # the masked picture that was running, and the batch of all that came
        engine.let.release()
    answers = await asyncio.gather(*predictions)
    assert [answer.status_code for answer in answers] == [200] * 4
    assert len(engine.whole) == runs + 2
    explaining.cancel()
    engine.let.release(100)
    await asyncio.gather(explaining, return_exceptions=True)


def client_waiting(client: httpx.AsyncClient) -> int:
    """Return how many pictures the service holds."""
    return int(client._transport.app.state.inference.admission.pending)  # type: ignore[attr-defined]


async def test_a_client_that_has_gone_is_explained_nothing_more(open_known: OpenKnown) -> None:
    engine = Held()
    client = await open_known(engine, maps=False, on_event_loop=False)
    explaining = asyncio.create_task(client.post("/explain", content=picture_with(("red", 8, 8)), headers=PNG))
    for _ in range(5):
        await engine.has_entered()
        engine.let.release()
    await engine.has_entered()
    explaining.cancel()
    await asyncio.gather(explaining, return_exceptions=True)
    assert client_waiting(client) == 0
    engine.let.release(1000)
    await client.post("/predict", content=picture_with(("red", 8, 8)), headers=PNG)
    assert len(engine.whole) == 5 + 1 + 1  # the one that was running, and the prediction


async def test_more_explanations_than_are_allowed_are_told_to_come_again(open_known: OpenKnown) -> None:
    engine = Held()
    client = await open_known(engine, maps=False, on_event_loop=False, settings={"max_explanations": 1})
    first = asyncio.create_task(client.post("/explain", content=picture_with(("red", 8, 8)), headers=PNG))
    await engine.has_entered()
    second = await client.post("/explain", content=picture_with(("red", 8, 8)), headers=PNG)
    assert_error(second, 503, "overloaded")
    assert int(second.headers["retry-after"]) >= 1
    engine.let.release(10_000)
    assert (await client.post("/predict", content=picture_with(("red", 8, 8)), headers=PNG)).status_code == 200
    assert (await first).status_code == 200
    assert (await client.post("/explain", content=picture_with(("red", 8, 8)), headers=PNG)).status_code == 200


async def test_a_masked_explanation_takes_a_share_of_its_deadline_and_says_how_many_masks(
    open_known: OpenKnown,
) -> None:
    client = await open_known(maps=False)
    counts = []
    for seconds in ("0.4", "0.8"):
        headers = {**PNG, "x-request-timeout": seconds}
        answer = await client.post("/explain", content=picture_with(("red", 8, 8)), headers=headers)
        assert answer.status_code == 200, answer.text
        counts.append(answer.json()["explanation"]["masks"])
    assert 32 <= counts[0] < counts[1] or counts[0] == 1000


async def test_an_explanation_without_the_time_for_enough_masks_is_504(open_known: OpenKnown) -> None:
    class Slow(Colours):
        def predict(self, batch: Image) -> NDArray[np.float32]:
            threading.Event().wait(0.01)
            return super().predict(batch)

    client = await open_known(Slow(), maps=False, on_event_loop=False)
    headers = {**PNG, "x-request-timeout": "0.2"}
    answer = await client.post("/explain", content=picture_with(("red", 8, 8)), headers=headers)
    assert_error(answer, 504, "deadline_exceeded")
    assert "too busy to explain" in answer.json()["error"]
