"""The sheet on which a person draws, in a real browser: digits of MNIST's test set, traced and drawn by the mouse."""

import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser import DESKTOP, PHONE, Visit
from tests.end_to_end.conftest import Service
from tests.end_to_end.strokes import Stroke, placed, strokes_of

SHEET = 280
_DRAW = """async strokes => {
    const pad = document.getElementById("pad");
    pad.setPointerCapture = () => {};  // no device has made the pointer
    const { left, top, width } = pad.getBoundingClientRect();
    const tell = (kind, [x, y]) => pad.dispatchEvent(new PointerEvent(kind, {
        pointerId: 7, button: 0, clientX: left + x * width / 280, clientY: top + y * width / 280,
    }));
    for (const stroke of strokes) {
        tell("pointerdown", stroke[0]);
        for (const point of stroke.slice(1)) tell("pointermove", point);
        tell("pointerup", stroke.at(-1));
    }
    const began = performance.now();
    while (pad.dataset.answered !== "true") {
        await new Promise(resolve => new MutationObserver(resolve).observe(pad, {attributes: true}));
    }
    return (performance.now() - began) / 1000;
}"""
PENS = {"fine": 8, "broad": 16}
HEIGHTS = (60, 120, 200)
POSITIONS = [(x, y) for x in (0.0, 0.5, 1.0) for y in (0.0, 0.5, 1.0)]


@pytest.fixture(scope="module")
def url(repository: Path) -> Iterator[str]:
    service = Service(repository / "model_store", model="mnist")
    try:
        service.wait_until_ready()
        yield service.url
    finally:
        assert service.stop() == 0


@pytest.fixture
def sheet(browser: Browser, url: str, request: pytest.FixtureRequest) -> Iterator["Sheet"]:
    visit = Visit(browser, url, **getattr(request, "param", DESKTOP))
    visit.wait_for("empty")
    visit.page.click("#draw")
    visit.wait_for("drawing")
    yield Sheet(visit)
    assert visit.complaints == []
    visit.context.close()


class Sheet:
    """The page while somebody draws on it."""

    def __init__(self, visit: Visit) -> None:
        self.visit = visit
        self.page: Page = visit.page
        self._pad = self.page.locator("#pad")

    def draw(self, strokes: list[Stroke]) -> None:
        box: Any = self._pad.bounding_box()
        scale = box["width"] / SHEET
        mouse = self.page.mouse
        for stroke in strokes:
            points = [(box["x"] + x * scale, box["y"] + y * scale) for x, y in stroke]
            mouse.move(*points[0])
            mouse.down()
            for point in points[1:]:
                mouse.move(*point)
            mouse.up()

    def draw_at_once(self, strokes: list[Stroke]) -> float:
        """Draw by events made in the page, as a mouse moves at most once a frame, and wait until all is answered.

        Return the seconds between the last event and the answer on the page.
        """
        return float(self.page.evaluate(_DRAW, strokes))

    def answer(self) -> str:
        """Return the label, once the page has an answer about all that is drawn."""
        self.page.wait_for_selector('#pad[data-answered="true"]')
        return self.page.inner_text(".best .label")

    def empty(self) -> None:
        self.page.click("#wipe")

    def choose_pen(self, pen: str) -> None:
        self.page.set_checked("#broad", pen == "broad")


def traced(folder: Path, every: int = 1) -> list[tuple[str, list[Stroke]]]:
    """Return digits of MNIST's test set, and their strokes."""
    pictures = sorted(folder.glob("[0-9]-*.png"))[::every]
    return [
        (path.name[0], strokes_of(np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), np.uint8)))
        for path in pictures
    ]


def test_a_digit_is_recognised_wherever_and_however_large_it_is_drawn(sheet: Sheet, data_folder: Path) -> None:
    chance = np.random.default_rng(0)
    wrong = []
    digits = traced(data_folder, every=4)
    for label, strokes in digits:
        pen = str(chance.choice(list(PENS)))
        height, position = float(chance.choice(HEIGHTS)), POSITIONS[int(chance.integers(len(POSITIONS)))]
        sheet.empty()
        sheet.choose_pen(pen)
        sheet.draw_at_once(placed(strokes, height=height, position=position, sheet=SHEET, pen=PENS[pen]))
        if (found := sheet.answer()) != label:
            wrong.append((label, found, pen, height, position))
    assert len(digits) >= 20
    assert len(wrong) <= 1, wrong


@pytest.mark.parametrize("sheet", [DESKTOP, PHONE, {**DESKTOP, "color_scheme": "dark"}], indirect=True)
def test_a_sheet_can_be_undone_emptied_and_left(sheet: Sheet) -> None:
    seven: list[Stroke] = [[(80, 80), (180, 80), (120, 220)], [(100, 150), (160, 150)]]
    page = sheet.page
    sheet.draw(seven)
    assert sheet.answer() == "7"
    expect(page.locator("#caption")).to_contain_text("7")
    assert sheet.visit.violations() == []
    assert sheet.visit.overflow == 0
    sheet.draw([[(20, 20), (260, 260)]])
    page.click("#undo")
    assert sheet.answer() == "7"
    for _ in seven:
        page.click("#undo")
    expect(page.locator("#caption")).to_contain_text("anywhere, at any size")
    page.click("#draw")
    sheet.visit.wait_for("empty")
    expect(page.locator("#pad")).to_be_hidden()


@pytest.mark.long
def test_every_digit_in_every_place(sheet: Sheet, data_folder: Path) -> None:
    """All digits in 9 places, 3 sizes and 2 pens. Prints the share that is right, and how long the answer to the last
    stroke took."""
    digits = traced(data_folder)
    right: dict[tuple[str, int], list[bool]] = {}
    seconds = []
    for (pen, width), height in product(PENS.items(), HEIGHTS):
        sheet.choose_pen(pen)
        for position, (label, strokes) in product(POSITIONS, digits):
            sheet.empty()
            drawn = placed(strokes, height=height, position=position, sheet=SHEET, pen=width)
            seconds.append(sheet.draw_at_once(drawn))
            right.setdefault((pen, height), []).append(sheet.answer() == label)
        share = np.mean(right[pen, height])
        sys.stdout.write(f"{pen} pen, {height} pixels high: {share:.2%} of {len(digits) * len(POSITIONS):,}" + "\n")
    median, most = np.quantile(seconds, [0.5, 0.99]) * 1000
    sys.stdout.write(f"answer after a stroke: median {median:.0f} ms, 99 % {most:.0f} ms" + "\n")
    assert all(np.mean(found) >= 0.97 for found in right.values())
