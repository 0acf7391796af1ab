"""A person corrects pictures by keyboard alone, in a real browser."""

import socket
import threading
from collections.abc import Iterator
from typing import Any, Literal

import pytest
import uvicorn
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser

from tests.training.review.conftest import HOSTILE, Reviewed
from training.data.decisions import decisions_file, read_decisions, standing
from training.review.server import review_app

SIZES: dict[str, tuple[int, int, Literal["light", "dark"]]] = {
    "desktop": (1280, 800, "light"),
    "phone": (320, 640, "dark"),
}


@pytest.fixture
def address(reviewed: Reviewed) -> Iterator[str]:
    """The address of the review with its token, served by a thread of this process."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        app = review_app(reviewed.session, port=port, token="s3cret", data=f"pets {HOSTILE}", after="training fit")
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", ws="none", log_config=None))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield f"http://127.0.0.1:{port}/?token=s3cret"
        server.should_exit = True
        thread.join()


def made(reviewed: Reviewed) -> list[tuple[str, str, str]]:
    return [(each.action, each.label, each.path) for each in standing(read_decisions(decisions_file(reviewed.data)))]


def test_a_person_corrects_pictures_by_keyboard_alone(browser: Browser, address: str, reviewed: Reviewed) -> None:
    complaints: list[str] = []
    asked: list[str] = []
    for width, height, scheme in SIZES.values():
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce"
        )
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)

        def press(key: str, number: int, page: Any = page) -> None:
            page.keyboard.press(key)
            page.wait_for_selector(f'html[data-at="{number}"]')

        def whole(page: Any = page) -> None:
            assert Axe().run(page).response["violations"] == []
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")

        page.wait_for_selector('html[data-at="0"]')
        assert page.url == address.partition("?")[0]
        page.get_by_text("This file cannot be shown as a picture.").wait_for()
        assert page.locator("[data-do=keep]").is_disabled()
        press("d", 1)
        assert page.locator("figure").count() == 2
        whole()
        page.keyboard.press("s")
        press("1", 2)
        press("l", 3)
        assert "wrong-label: called cats. Looks like 'dogs'." in page.locator("[role=status]").inner_text()
        assert page.locator("#labels button").first.inner_text() == "1 dogs 0.93"
        press("1", 4)
        assert page.locator("#reasons").inner_text() == HOSTILE
        assert page.locator("figcaption b").inner_text() == HOSTILE
        assert page.locator("img[src=x]").count() == 0
        whole()
        press("u", 3)
        page.keyboard.press("/")
        page.keyboard.type("nothing")
        page.keyboard.press("Enter")
        page.get_by_text("There is no class 'nothing' in this data.").wait_for()
        page.locator("#label").fill("DOGS")
        press("Enter", 4)
        press("k", 5)
        assert page.locator("#asked").inner_text() == "All are decided."
        assert page.locator("#answer").inner_text() == "Next: training fit"
        assert made(reviewed) == [
            ("drop", "", "cats/broken.png"),
            ("relabel", "dogs", "cats/03.png"),
            ("later", "", "cats/copy.png"),
            ("relabel", "dogs", "cats/05.png"),
            ("keep", "", f"{HOSTILE}/{HOSTILE}0.png"),
        ]
        for number in (4, 3, 2, 1, 0):
            press("u", number)
        assert made(reviewed) == []
        context.close()
    assert complaints == []
    assert all(url.startswith(address.partition("?")[0]) for url in asked)
