"""The page at / in a real browser, on a real service: what a person sees, hears, types and copies."""

import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
from playwright.sync_api import Browser, FilePayload, Page, Route, expect

from app.contract.store import ModelStore
from tests.browser import DESKTOP, PHONE, SMALL_PHONE, UNSAFE_HOST, Visit, opened_browser
from tests.conftest import FindProgram
from tests.end_to_end.conftest import Service
from tests.versions import version_of

HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(2)</script>",
    "__proto__",
    "constructor",
    "=1+1",
    '"quoted", with a comma',
    "'; drop table labels; --",
    "a label that is so long that no phone has room for it on one line, and that goes on and on and on and on",
    "unbroken" * 12,
    "\u202egnp.7",
)
HOSTILE_FILE = "<img src=x onerror=alert(3)> $(id) `id` 'a' \"b\".png"

OpenPage = Callable[..., Visit]


@pytest.fixture(scope="module")
def store(repository: Path, tmp_path_factory: pytest.TempPathFactory, sign: Callable[[Path], None]) -> Path:
    """The bundled model, and the same under hostile labels, which is never sure."""
    folder = tmp_path_factory.mktemp("model_store")
    for name in ("mnist", "tricky"):
        shutil.copytree(repository / "model_store" / "mnist" / "1", folder / name / "1")
    bundle = folder / "tricky" / "1"
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    golden = [{**picture, "label": HOSTILE[int(picture["label"])]} for picture in manifest["golden"]]
    manifest |= {"name": "tricky", "labels": HOSTILE, "golden": golden, "schema_version": 2, "min_probability": 1.0}
    (bundle / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    sign(bundle)
    return folder


@pytest.fixture(scope="module")
def url(store: Path) -> Iterator[str]:
    service = Service(store, page_samples=True, model="mnist")
    try:
        service.wait_until_ready()
        yield service.url
    finally:
        assert service.stop() == 0


@pytest.fixture(scope="module")
def seven(data_folder: Path) -> Path:
    return data_folder / "7-00000.png"


@pytest.fixture(scope="module")
def browser(program: FindProgram, seven: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser whose camera sees a seven."""
    digit = cv2.imread(str(seven), cv2.IMREAD_GRAYSCALE)
    assert digit is not None
    sheet = np.zeros((480, 640), np.uint8)
    sheet[40:440, 120:520] = cv2.resize(digit, (400, 400))
    film = tmp_path_factory.mktemp("camera") / "seven.mjpeg"
    film.write_bytes(cv2.imencode(".jpg", sheet)[1].tobytes() * 4)
    with opened_browser(program("chromium"), camera=film) as browser:
        yield browser


@pytest.fixture
def open_page(browser: Browser, url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[OpenPage]:
    """Return a function that opens the page and waits until it is ready; what it complains about fails the test."""
    visits: list[Visit] = []

    def open_one(address: str = url, *, state: str = "empty", **options: Any) -> Visit:
        visits.append(Visit(browser, address, **(options or DESKTOP)))
        visits[-1].wait_for(state)
        return visits[-1]

    failures = request.session.testsfailed
    yield open_one
    failed = request.session.testsfailed > failures
    for number, visit in enumerate(visits):
        if failed or visit.complaints:
            visit.page.screenshot(path=tmp_path / f"visit-{number}.png", full_page=True)
        visit.page.unroute_all(behavior="ignoreErrors")
        visit.context.close()
        assert visit.complaints == []
        assert visit.hosts == {urlsplit(visit.url).netloc}


def choose(page: Page, *files: Path) -> None:
    page.set_input_files("#files", files)


def payload(name: str, content: bytes) -> FilePayload:
    return {"name": name, "mimeType": "image/png", "buffer": content}


def bars(page: Page) -> dict[str, str]:
    """The numbers beside the bars by label, in the order of the page."""
    names = page.locator(".bars .name").all_text_contents()
    return dict(zip(names, page.locator(".bars .value").all_text_contents(), strict=True))


def hand_over(page: Page, event: str, name: str, content: bytes) -> None:
    """Drop a file on the page, or paste it."""
    page.evaluate(
        """([event, name, content]) => {
            const files = new DataTransfer();
            files.items.add(new File([new Uint8Array(content)], name, {type: "image/png"}));
            document.body.dispatchEvent(event === "drop"
                ? new DragEvent("drop", {bubbles: true, cancelable: true, dataTransfer: files})
                : new ClipboardEvent("paste", {bubbles: true, clipboardData: files}));
        }""",
        [event, name, list(content)],
    )


# What a person does with one picture


@pytest.mark.parametrize("how", ["choose", "drop", "paste"])
def test_a_picture_that_is_chosen_dropped_or_pasted_is_answered(open_page: OpenPage, seven: Path, how: str) -> None:
    visit = open_page()
    if how == "choose":
        choose(visit.page, seven)
    else:
        hand_over(visit.page, how, seven.name, seven.read_bytes())
    visit.wait_for("answer")
    expect(visit.page.locator(".best .label")).to_have_text("7")
    expect(visit.page.locator(".panel h3")).to_have_text("mnist version 1")
    expect(visit.page.locator("#caption")).to_have_text("7-00000.png, 28 × 28, 317\u00a0bytes")
    expect(visit.page.locator("#shown")).to_have_attribute("alt", "The picture: 7-00000.png")


def test_a_sample_is_answered_and_says_how_it_is_labelled(open_page: OpenPage) -> None:
    visit = open_page()
    visit.page.get_by_role("button", name="Sample: 4").click()
    visit.wait_for("answer")
    expect(visit.page.locator(".best .label")).to_have_text("4")
    expect(visit.page.locator("#caption")).to_contain_text("A sample, labelled “4”")
    assert visit.page.locator(".chips img").count() == 10


def test_a_heat_map_lies_over_the_picture_as_strong_as_is_wanted(open_page: OpenPage, seven: Path) -> None:
    visit = open_page()
    choose(visit.page, seven)
    visit.wait_for("answer")
    visit.page.get_by_role("button", name="Show what speaks for it").click()
    heat = visit.page.locator("#heat")
    expect(heat).to_be_visible()
    shown, over = visit.page.locator("#shown").bounding_box(), heat.bounding_box()
    assert over == shown
    strength = visit.page.get_by_label("Heat map")
    expect(strength).to_be_focused()
    expect(heat).to_have_css("opacity", "1")
    strength.press("Home")
    expect(heat).to_have_css("opacity", "0")
    assert visit.violations() == []
    choose(visit.page, seven)
    expect(heat).to_be_hidden()
    expect(visit.page.get_by_role("button", name="Show what speaks for it")).to_be_visible()


def test_bars_stay_in_the_order_of_the_labels_from_answer_to_answer(open_page: OpenPage) -> None:
    visit = open_page()
    before = list(bars(visit.page))
    for digit in "718":
        visit.page.get_by_role("button", name=f"Sample: {digit}").click()
        expect(visit.page.locator(".is-best .name")).to_have_text(digit)
        assert list(bars(visit.page)) == before == [*"0123456789"]


def test_the_time_is_split_into_its_parts(open_page: OpenPage, seven: Path) -> None:
    page = open_page().page
    choose(page, seven)
    parts = page.locator(".time li")
    for number, part in enumerate(["reading", "decoding", "waiting for a batch", "the model", "network and browser"]):
        expect(parts.nth(number)).to_contain_text(re.compile(rf"^{part} .*ms$"))
    expect(page.locator(".time p")).to_contain_text(re.compile(r"^Answered in .*ms$"))


def test_two_models_answer_side_by_side_and_one_of_them_is_unsure(open_page: OpenPage, seven: Path) -> None:
    visit = open_page()
    visit.page.get_by_label("Beside it").select_option("tricky")
    choose(visit.page, seven)
    visit.wait_for("answer")
    expect(visit.page.locator(".best .label")).to_have_text(["7", HOSTILE[7]])
    sure, unsure = visit.page.locator(".panel > .badge").all()
    expect(sure).to_be_hidden()
    expect(unsure).to_have_text("Unsure")


def test_two_versions_answer_side_by_side_while_one_is_in_preview(
    open_page: OpenPage, repository: Path, seven: Path, tmp_path: Path
) -> None:
    mnist = repository / "model_store" / "mnist" / "1"
    for version in (1, 2):
        version_of(mnist, version, tmp_path / "store")
    ModelStore(tmp_path / "store").begin_preview("mnist", 1)
    service = Service(tmp_path / "store", workers=1)
    service.wait_until_ready()
    service.wait_for_all("model in preview", count=1)
    visit = open_page(service.url)
    visit.page.get_by_label("Beside it").select_option("mnist, version 1 (preview)")
    choose(visit.page, seven)
    visit.wait_for("answer")
    expect(visit.page.locator(".panel h3")).to_have_text(["mnist version 2", "mnist version 1, preview"])
    expect(visit.page.locator(".best .label")).to_have_text(["7", "7"])
    visit.page.locator("#model").select_option("mnist, version 1 (preview)")
    visit.wait_for("answer")
    visit.page.get_by_text("Ask from your own program").click()
    expect(visit.page.locator("#program")).to_contain_text("predict?model=mnist&version=1")
    assert service.stop() == 0


def test_a_screen_reader_hears_the_answer_and_the_error(open_page: OpenPage, seven: Path, repository: Path) -> None:
    page = open_page().page
    said = page.get_by_role("status")
    choose(page, seven)
    expect(said).to_have_text("7, >\u00a099.9\u00a0%.")
    choose(page, repository / "README.md")
    expect(said).to_contain_text("These bytes are not a picture in a known format")


def test_it_works_by_the_keyboard_alone(open_page: OpenPage, seven: Path) -> None:
    visit = open_page()
    page = visit.page
    page.on("filechooser", lambda _: None)  # from here on, not only once a key is on its way, choosers are reported

    def tab_to(name: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            words, outline = page.evaluate(
                """() => {
                    const focused = document.activeElement;
                    const words = `${focused.textContent} ${focused.querySelector("img")?.alt}`;
                    return [words, getComputedStyle(focused).outlineStyle];
                }"""
            )
            if name in words and not words.strip().startswith("imageclass"):  # not the whole body
                assert outline == "solid"  # one sees where one is
                return
        pytest.fail(f"Tab does not reach {name}")

    tab_to("Choose pictures")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files([seven, seven])
    visit.wait_for("many")
    tab_to("7-00000.png")
    page.keyboard.press("Enter")
    visit.wait_for("answer")
    expect(page.locator(":focus")).to_have_text("Back to all pictures")
    page.keyboard.press("Enter")
    visit.wait_for("many")
    expect(page.locator(":focus")).to_contain_text("7-00000.png")
    page.locator("#clear").press("Enter")
    visit.wait_for("empty")
    tab_to("Sample: 4")
    page.keyboard.press("Space")
    expect(page.locator(".best .label")).to_have_text("4")
    tab_to("Ask from your own program")
    page.keyboard.press("Enter")
    tab_to("curl --data-binary")  # it scrolls, so the keyboard reaches it


# What comes from outside is text


def test_hostile_labels_and_file_names_are_text(open_page: OpenPage, seven: Path) -> None:
    visit = open_page()
    page = visit.page
    page.on("dialog", lambda dialog: visit.complaints.append(dialog.message))
    page.get_by_label("Model").select_option("tricky")
    expect(page.locator(".chips img")).to_have_count(10)
    page.set_input_files("#files", payload(HOSTILE_FILE, seven.read_bytes()))
    visit.wait_for("answer")
    assert list(bars(page)) == list(HOSTILE)
    expect(page.locator("#caption")).to_contain_text(HOSTILE_FILE)
    page.set_input_files("#files", payload(HOSTILE_FILE, b"no picture"))
    visit.wait_for("error")
    page.set_input_files("#files", [payload(name, seven.read_bytes()) for name in (HOSTILE_FILE, "b.png")])
    expect(page.locator(".tiles strong")).to_have_text([HOSTILE[7]] * 2)
    assert page.locator("script").count() == 1
    assert page.locator("img[src='x']").count() == 0
    assert page.evaluate("Object.getPrototypeOf({}) === Object.prototype && ({}).toString() === '[object Object]'")


def test_no_label_makes_the_page_wider_than_the_smallest_phone(open_page: OpenPage, seven: Path) -> None:
    visit = open_page(**SMALL_PHONE)
    visit.page.get_by_label("Model").select_option("tricky")
    visit.page.get_by_label("Beside it").select_option("mnist")
    choose(visit.page, seven)
    visit.wait_for("answer")
    assert visit.overflow == 0


def test_the_markup_of_an_error_is_text(open_page: OpenPage, seven: Path) -> None:
    visit = open_page()
    body = json.dumps({"error": HOSTILE[0], "code": "x", "request_id": HOSTILE[1]})
    visit.page.route("**/predict*", lambda route: route.fulfill(status=422, body=body))
    choose(visit.page, seven)
    visit.wait_for("error")
    expect(visit.page.locator("#problem")).to_contain_text(HOSTILE[0])
    expect(visit.page.locator("#problem code")).to_have_text(HOSTILE[1])


# Errors


def test_an_error_is_in_the_services_own_words_with_its_id(open_page: OpenPage, repository: Path) -> None:
    visit = open_page()
    with visit.page.expect_response("**/predict*") as answered:
        choose(visit.page, repository / "README.md")
    visit.wait_for("error")
    expect(visit.page.locator("#problem")).to_contain_text("These bytes are not a picture in a known format; send JPEG")
    expect(visit.page.locator("#problem code")).to_have_text(answered.value.headers["x-request-id"])


def test_a_busy_service_is_asked_again_when_it_says(open_page: OpenPage, seven: Path) -> None:
    visit = open_page()
    asked: list[float] = []

    def busy_once(route: Route) -> None:
        asked.append(monotonic())
        if len(asked) == 1:
            busy = json.dumps({"error": "512 pictures wait. Ask again later.", "code": "overloaded", "request_id": "a"})
            route.fulfill(status=503, headers={"Retry-After": "1"}, body=busy)
        else:
            route.continue_()

    visit.page.route("**/predict*", busy_once)
    choose(visit.page, seven)
    expect(visit.page.locator("#problem")).to_have_text("512 pictures wait. Ask again later. Asking again in 1 second.")
    visit.wait_for("answer")
    expect(visit.page.locator("#problem")).to_be_hidden()
    first, second = asked
    assert second - first >= 1


def test_a_service_that_is_gone_is_asked_again_on_request(open_page: OpenPage, seven: Path) -> None:
    visit = open_page()
    visit.page.route("**/predict*", lambda route: route.abort("connectionrefused"))
    choose(visit.page, seven)
    visit.wait_for("error")
    expect(visit.page.locator("#problem")).to_contain_text("The service did not answer.")
    visit.page.unroute("**/predict*")
    visit.page.get_by_role("button", name="Try again").click()
    visit.wait_for("answer")


def test_an_answer_that_is_a_proxys_is_called_so(open_page: OpenPage, seven: Path) -> None:
    visit = open_page()
    visit.page.route("**/predict*", lambda route: route.fulfill(status=413, body="<h1>413</h1>"))
    choose(visit.page, seven)
    visit.wait_for("error")
    expect(visit.page.locator("#problem")).to_contain_text("Something between this page and the service")


# Many pictures


def test_many_pictures_become_a_gallery_and_a_csv_file(open_page: OpenPage, seven: Path, repository: Path) -> None:
    visit = open_page()
    page = visit.page
    names = [*(f"{number}.png" for number in range(6)), "=HYPERLINK(1).png", "notes.txt"]
    contents = [seven.read_bytes()] * 7 + [b"no picture"]
    page.set_input_files("#files", [payload(*each) for each in zip(names, contents, strict=True)])
    expect(page.locator("#progress")).to_have_text("8 of 8 pictures answered, 1 of them with an error.")
    expect(page.get_by_role("status")).to_have_text("8 of 8 pictures answered, 1 of them with an error.")
    assert page.locator(".tiles .file").all_text_contents() == names
    with page.expect_download() as download:
        page.get_by_role("button", name="Download as CSV").click()
    rows = list(csv.DictReader(Path(download.value.path()).read_text().splitlines()))
    assert [row["file"] for row in rows] == [*names[:6], "'=HYPERLINK(1).png", "notes.txt"]
    assert {(row["model"], row["version"], row["label"], row["error"]) for row in rows[:7]} == {("mnist", "1", "7", "")}
    assert float(rows[0]["probability"]) > 0.99
    assert rows[7]["label"] == ""
    assert "not a picture" in rows[7]["error"]


def test_a_gallery_that_is_stopped_asks_nothing_more(open_page: OpenPage, seven: Path) -> None:
    visit = open_page()
    held: list[Route] = []
    visit.page.route("**/predict*", lambda route: held.append(route))  # noqa: PLW0108 - Playwright asks a function for its signature
    with visit.page.expect_request("**/predict*"):
        choose(visit.page, *[seven] * 12)
    visit.page.get_by_role("button", name="Stop").click()
    expect(visit.page.locator("#progress")).to_have_text("0 of 12 pictures answered. Stopped.")
    assert 1 <= len(held) <= 4


# The camera


def test_the_camera_asks_at_most_five_times_a_second_and_one_at_a_time(open_page: OpenPage) -> None:
    visit = open_page(**PHONE, permissions=["camera"])
    page = visit.page
    page.get_by_role("button", name="Use the camera").click()
    visit.wait_for("camera")
    expect(page.locator(".best .label")).to_have_text("7")
    asked = "performance.getEntriesByType('resource').filter(({name}) => name.includes('/predict'))"
    while page.evaluate(f"{asked}.length") < 6:
        page.wait_for_event("requestfinished")
    times = page.evaluate(f"{asked}.map(({{startTime, responseEnd}}) => [startTime, responseEnd])")[:6]
    assert all(began >= ended for (_, ended), (began, _) in pairwise(times))
    assert times[5][0] - times[0][0] >= 950  # five intervals of 200 ms; a timer may be a little early
    page.get_by_role("button", name="Keep this picture").click()
    visit.wait_for("answer")
    expect(page.locator("#caption")).to_contain_text("camera.jpg, 640 × 480")
    assert page.evaluate("document.getElementById('live').srcObject") is None


def test_without_a_safe_address_the_page_says_why_there_is_no_camera(
    open_page: OpenPage, url: str, seven: Path
) -> None:
    visit = open_page(url.replace("127.0.0.1", UNSAFE_HOST))
    expect(visit.page.locator("#no-camera")).to_be_visible()
    expect(visit.page.get_by_role("button", name="Use the camera")).to_be_disabled()
    choose(visit.page, seven)
    visit.wait_for("answer")
    visit.page.get_by_text("Ask from your own program").click()
    visit.page.get_by_role("button", name="Copy as curl").click()  # nor is there a clipboard
    assert visit.page.evaluate("getSelection().toString()").startswith("curl ")


# Programs


@pytest.mark.parametrize(("language", "name"), [("curl", "curl"), ("Python", "python"), ("JavaScript", "node")])
def test_a_copied_program_runs(
    open_page: OpenPage, seven: Path, program: FindProgram, tmp_path: Path, language: str, name: str
) -> None:
    visit = open_page(permissions=["clipboard-read", "clipboard-write"], **DESKTOP)
    file_name = HOSTILE_FILE.replace("/", "")
    shutil.copy(seven, tmp_path / file_name)
    choose(visit.page, tmp_path / file_name)
    visit.wait_for("answer")
    visit.page.get_by_text("Ask from your own program").click()
    visit.page.get_by_role("button", name=f"Copy as {language}").click()
    expect(visit.page.locator("#copied")).to_have_text(f"Copied as {language}.")
    copied = visit.page.evaluate("navigator.clipboard.readText()")
    assert copied == visit.page.locator("#program").text_content()
    if language == "curl":
        command = ["sh", "-c", copied.replace("curl", f"{program('curl')} --silent --show-error", 1)]
    else:
        script = tmp_path / ("ask.mjs" if language == "JavaScript" else "ask.py")
        script.write_text(copied)
        command = [program("node") if language == "JavaScript" else sys.executable, str(script)]
    printed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True).stdout
    assert re.match(r'\{"label":"7"|7 0\.99', printed)


# For everybody


@pytest.mark.parametrize(
    # Colours go by the scheme alone, and what is beside what goes by the size alone.
    ("size", "scheme"),
    [(DESKTOP, "light"), (SMALL_PHONE, "dark")],
    ids=["desktop-light", "phone-dark"],
)
def test_axe_finds_nothing_in_any_state_and_nothing_is_cut_off(
    open_page: OpenPage, seven: Path, repository: Path, size: dict[str, Any], scheme: str
) -> None:
    visit = open_page(color_scheme=scheme, permissions=["camera"], **size)
    page = visit.page

    def check(state: str) -> None:
        visit.wait_for(state)
        assert visit.violations() == [], state
        assert visit.overflow == 0, state

    check("empty")
    page.get_by_label("Beside it").select_option("tricky")
    held: list[Route] = []
    page.route("**/predict*", lambda route: held.append(route))  # noqa: PLW0108 - the same
    with page.expect_request("**/predict*"):
        choose(page, seven)
    check("loading")
    page.unroute("**/predict*")  # which lets the held one go
    visit.wait_for("answer")
    page.get_by_text("Ask from your own program").click()
    check("answer")
    choose(page, repository / "README.md")
    check("error")
    choose(page, seven, repository / "README.md", seven)
    expect(page.locator("#stop")).to_be_disabled()
    check("many")
    page.locator(".tiles button").first.click()
    visit.wait_for("answer")
    page.get_by_role("button", name="Use the camera").click()
    check("camera")


def test_axe_finds_nothing_in_forced_colours_and_bars_are_seen_in_them(open_page: OpenPage, seven: Path) -> None:
    visit = open_page(forced_colors="active", **DESKTOP)
    choose(visit.page, seven)
    visit.wait_for("answer")
    assert visit.violations() == []
    colours = [
        visit.page.locator(selector).first.evaluate("node => getComputedStyle(node).backgroundColor")
        for selector in (".is-best .fill", "li:not(.is-best) .fill", ".is-best .track")
    ]
    assert len(set(colours)) == 3


def test_nothing_moves_for_whoever_wants_no_motion(open_page: OpenPage, seven: Path) -> None:
    moving = "document.getAnimations().length"
    still = open_page(reduced_motion="reduce", **DESKTOP)
    choose(still.page, seven)
    still.wait_for("answer")
    assert still.page.evaluate(moving) == 0
    assert still.page.evaluate("getComputedStyle(document.querySelector('.fill')).transitionDuration") == "0s"


def test_the_page_is_small_and_asks_for_little(open_page: OpenPage) -> None:
    visit = open_page()
    expect(visit.page.locator(".chips img")).to_have_count(10)
    of_the_page = [asked for asked in visit.asked if not asked.startswith("blob:") and "/samples/" not in asked]
    assert len(of_the_page) <= 15
    assert visit.page.evaluate("document.styleSheets.length + document.scripts.length") == 2
