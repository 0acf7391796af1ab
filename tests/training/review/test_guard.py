"""Nobody reaches the page but who has the token, at this machine's address, from the page itself."""

import re
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.training.review.conftest import Reviewed
from training.data.decisions import decisions_file, read_decisions
from training.review.server import review_app

PORT, TOKEN = 4711, "t0ken-of-this-session"
HOME = f"http://127.0.0.1:{PORT}"
ORIGIN = {"Origin": HOME}


@pytest.fixture
async def stranger(reviewed: Reviewed) -> AsyncIterator[httpx.AsyncClient]:
    app = review_app(reviewed.session, port=PORT, token=TOKEN, data="pets", after="fit")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=HOME) as client:
        yield client


@pytest.fixture
async def person(stranger: httpx.AsyncClient) -> httpx.AsyncClient:
    assert (await stranger.get("/", params={"token": TOKEN})).status_code == 200
    return stranger


async def test_the_token_becomes_a_cookie_that_no_script_and_no_other_site_gets(stranger: httpx.AsyncClient) -> None:
    opened = await stranger.get("/", params={"token": TOKEN})
    assert opened.headers["Set-Cookie"].split("; ")[1:] == ["Path=/", "HttpOnly", "SameSite=Strict"]
    assert TOKEN not in opened.text
    assert (await stranger.get("/questions")).status_code == 200


@pytest.mark.parametrize("path", ["/", "/?token=", "/?token=wrong", "/questions", "/pictures/0/0", "/review.js", "/no"])
async def test_without_the_token_nothing_is_shown(stranger: httpx.AsyncClient, path: str) -> None:
    answer = await stranger.get(path)
    assert answer.status_code == 403
    assert "token" in answer.text
    assert "Set-Cookie" not in answer.headers


async def test_the_token_opens_the_page_alone_and_a_wrong_cookie_nothing(stranger: httpx.AsyncClient) -> None:
    assert (await stranger.get("/questions", params={"token": TOKEN})).status_code == 403
    cookie = f"imageclass-review-{PORT}=".encode()
    for wrong in (b"", b"wrong", "wröng".encode(), b"\xff", TOKEN[:-1].encode()):
        assert (await stranger.get("/questions", headers={b"Cookie": cookie + wrong})).status_code == 403
    assert (await stranger.get("/questions", headers={b"Cookie": cookie + TOKEN.encode()})).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1", "127.0.0.1:1", ""])
async def test_a_name_that_only_leads_here_is_rejected(person: httpx.AsyncClient, host: str) -> None:
    for path in ("/questions", f"/?token={TOKEN}"):
        answer = await person.get(path, headers={"Host": host})
        assert answer.status_code == 421
        assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:1", f"https://127.0.0.1:{PORT}", None]
)
async def test_another_page_can_decide_nothing(
    person: httpx.AsyncClient, reviewed: Reviewed, origin: str | None
) -> None:
    headers = {} if origin is None else {"Origin": origin}
    given = {"question": 0, "action": "drop"}
    assert (await person.post("/answers", json=given, headers=headers)).status_code == 403
    assert (await person.post("/undo", headers=headers)).status_code == 403
    assert read_decisions(decisions_file(reviewed.data)) == []


async def test_the_page_itself_decides_and_takes_back(person: httpx.AsyncClient, reviewed: Reviewed) -> None:
    number = reviewed.number("wrong-label")
    given = {"question": number, "action": "relabel", "label": "dogs"}
    answer = await person.post("/answers", json=given, headers=ORIGIN)
    assert answer.json() == {"question": number, "answer": {"action": "relabel", "label": "dogs", "picture": 0}}
    assert (await person.post("/undo", headers=ORIGIN)).json() == {"question": number, "answer": None}


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({"question": 10**6, "action": "drop"}, 409),
        ({"question": -1, "action": "drop"}, 422),
        ({"question": 0, "action": "undo"}, 422),
        ({"question": 0, "action": "drop", "picture": 2}, 422),
        ({"question": 0, "action": "drop", "path": "../../etc/passwd"}, 422),
        ({"question": 0, "action": "relabel", "label": "../birds"}, 409),
    ],
)
async def test_an_answer_that_cannot_be_is_rejected(
    person: httpx.AsyncClient, reviewed: Reviewed, given: dict[str, object], status: int
) -> None:
    assert (await person.post("/answers", json=given, headers=ORIGIN)).status_code == status
    assert read_decisions(decisions_file(reviewed.data)) == []


async def test_pictures_are_those_of_the_questions_and_nothing_else(
    person: httpx.AsyncClient, reviewed: Reviewed
) -> None:
    (reviewed.data / "secret.png").write_bytes((reviewed.data / "cats" / "01.png").read_bytes())
    shown = await person.get(f"/pictures/{reviewed.number('duplicate')}/1")
    assert (shown.status_code, shown.headers["Content-Type"]) == (200, "image/png")
    for path in (
        "0/9",
        "999/0",
        "-1/0",
        "0/../../secret.png",
        "..%2f..%2fsecret.png",
        "%2e%2e/secret.png",
        "cats/01.png",
    ):
        assert (await person.get(f"/pictures/{path}")).status_code in (404, 422), path
    assert (await person.get(f"/pictures/{reviewed.number('corrupt')}/0")).status_code == 409


async def test_every_answer_allows_the_page_its_own_files_alone(person: httpx.AsyncClient) -> None:
    for path in ("/", "/review.js", "/review.css", "/questions", "/pictures/0/0", "/nothing", "/docs", "/openapi.json"):
        answer = await person.get(path)
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; ")
        assert "unsafe" not in policy
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert (await person.get("/docs")).status_code == (await person.get("/openapi.json")).status_code == 404
    page = (await person.get("/")).text
    assert "<style" not in page
    assert re.findall(r"<script[^>]*>[^<]*", page) == ['<script type="module" src="/review.js">']
