"""The page of a service that asks for API keys, in a real browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browser import DESKTOP, SMALL_PHONE, Visit
from tests.end_to_end.conftest import Service


@pytest.fixture(scope="module")
def url(repository: Path) -> Iterator[str]:
    service = Service(repository / "model_store", page_samples=True, api_keys="the-right-key", model="mnist")
    try:
        service.wait_until_ready()
        yield service.url
    finally:
        assert service.stop() == 0


def test_a_key_is_asked_for_and_kept_in_memory_alone(browser: Browser, url: str, data_folder: Path) -> None:
    visit = Visit(browser, url, **DESKTOP)
    page = visit.page
    visit.wait_for("key")
    expect(page.get_by_label("API key")).to_be_focused()
    page.keyboard.type("the-wrong-key")
    page.keyboard.press("Enter")
    expect(page.locator("#key-reason")).to_have_text("This API key is not valid here. Send a valid one.")
    expect(page.get_by_label("API key")).to_have_value("")
    page.keyboard.type("the-right-key")
    page.keyboard.press("Enter")
    visit.wait_for("empty")
    expect(page.locator(".chips img")).to_have_count(10)
    page.set_input_files("#files", data_folder / "7-00000.png")
    visit.wait_for("answer")
    expect(page.locator(".best .label")).to_have_text("7")

    assert "$IMAGECLASS_API_KEY" in (page.locator("#program").text_content() or "")
    assert "the-right-key" not in page.content()
    assert not [asked for asked in visit.asked if "key" in asked]
    kept = "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href, history.state])"
    assert "key" not in page.evaluate(kept)
    assert page.evaluate("indexedDB.databases().then((found) => found.length)") == 0
    page.reload()
    visit.wait_for("key")
    assert visit.complaints == []
    visit.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_while_a_key_is_asked(browser: Browser, url: str, scheme: str) -> None:
    visit = Visit(browser, url, color_scheme=scheme, **SMALL_PHONE)
    visit.wait_for("key")
    assert visit.violations() == []
    assert visit.overflow == 0
    visit.context.close()
