import asyncio
import gzip
import io
import json
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from PIL import Image as Pillow

from app.api.openapi.schemas import BatchAnswer, PredictionAnswer
from tests.api.conftest import OpenClient
from tests.oddities import pillow, progressive_jpeg

PNG = {"content-type": "image/png"}


@pytest.fixture
def seven(data_folder: Path) -> bytes:
    return (data_folder / "7-00000.png").read_bytes()


def png_of(height: int, width: int) -> bytes:
    return cv2.imencode(".png", np.zeros((height, width), np.uint8))[1].tobytes()


def assert_error(response: httpx.Response, status: int, code: str) -> None:
    """The one shape of every error."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert set(body) == {"error", "code", "request_id"}
    assert body["code"] == code
    assert body["error"].endswith((".", "?"))
    assert body["request_id"] == response.headers["x-request-id"]


async def test_a_picture_in_a_form_gets_a_probability_for_every_label_in_order(
    client: httpx.AsyncClient, seven: bytes
) -> None:
    response = await client.post("/predict", files={"file": ("seven.png", seven, "image/png")})
    assert response.status_code == 200
    answer = PredictionAnswer.model_validate(response.json())
    assert list(answer.probabilities) == [str(digit) for digit in range(10)]
    assert answer.probability == max(answer.probabilities.values()) == answer.probabilities[answer.label]
    assert sum(answer.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert (answer.model.name, answer.model.version) == ("digits", 1)


@pytest.mark.parametrize("media_type", ["image/png", "image/jpeg", "application/octet-stream"])
async def test_a_raw_body_gets_the_answer_that_the_form_gets(
    client: httpx.AsyncClient, seven: bytes, media_type: str
) -> None:
    by_form = await client.post("/predict", files={"file": ("seven.png", seven)})
    raw = await client.post("/predict", content=seven, headers={"content-type": media_type})
    assert raw.json() == by_form.json()


async def test_top_k_keeps_the_best_labels_best_first(client: httpx.AsyncClient, seven: bytes) -> None:
    everything = (await client.post("/predict", content=seven, headers=PNG)).json()["probabilities"]
    top = (await client.post("/predict?top_k=3", content=seven, headers=PNG)).json()["probabilities"]
    assert list(top.items()) == sorted(everything.items(), key=lambda entry: -entry[1])[:3]


async def test_top_k_beyond_the_classes_gives_all_of_them(client: httpx.AsyncClient, seven: bytes) -> None:
    response = await client.post("/predict?top_k=1000", content=seven, headers=PNG)
    assert len(response.json()["probabilities"]) == 10


async def test_the_model_can_be_named(client: httpx.AsyncClient, seven: bytes) -> None:
    assert (await client.post("/predict?model=digits", content=seven, headers=PNG)).status_code == 200
    assert_error(await client.post("/predict?model=cats", content=seven, headers=PNG), 404, "model_not_found")


@pytest.mark.parametrize("query", ["top_k=0", "top_k=-1", "top_k=many"])
async def test_a_wrong_query_is_400(client: httpx.AsyncClient, seven: bytes, query: str) -> None:
    assert_error(await client.post(f"/predict?{query}", content=seven, headers=PNG), 400, "malformed_request")


async def test_what_is_not_a_picture_is_told_what_to_send(client: httpx.AsyncClient, seven: bytes) -> None:
    text = await client.post("/predict", files={"file": ("a.png", b"hello")})
    assert_error(text, 415, "unsupported_format")
    assert "JPEG" in text.json()["error"]
    assert_error(await client.post("/predict", files={"file": ("a.png", b"")}), 422, "undecodable_image")
    assert_error(await client.post("/predict", content=b"", headers=PNG), 422, "undecodable_image")
    assert_error(await client.post("/predict", content=seven[:20], headers=PNG), 422, "undecodable_image")
    assert_error(await client.post("/predict", content=seven[:60], headers=PNG), 422, "undecodable_image")


async def test_a_body_of_another_type_is_415(client: httpx.AsyncClient, seven: bytes) -> None:
    assert_error(await client.post("/predict", json={"file": "…"}), 415, "unsupported_media_type")
    for media_type in ("text/plain", "multipart/mixed; boundary=x", "multipart/form-database; boundary=x"):
        answer = await client.post("/predict", content=seven, headers={"content-type": media_type})
        assert_error(answer, 415, "unsupported_media_type")
        assert media_type in answer.json()["error"]


async def test_a_raw_body_without_a_content_type_is_decided_by_its_bytes(
    client: httpx.AsyncClient, seven: bytes
) -> None:
    expected = (await client.post("/predict", content=seven, headers=PNG)).json()
    assert (await client.post("/predict", content=seven)).json() == expected
    assert_error(await client.post("/predict", content=b"%PDF-1.7"), 415, "unsupported_format")
    assert_error(await client.post("/predict", content=seven[:60]), 422, "undecodable_image")


async def test_a_form_or_nothing_without_a_content_type_is_told_that_it_is_missing(
    client: httpx.AsyncClient, seven: bytes
) -> None:
    form = b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n%b\r\n--x--\r\n' % seven
    for body in (form, b""):
        answer = await client.post("/predict", content=body)
        assert_error(answer, 415, "unsupported_media_type")
        assert "no Content-Type" in answer.json()["error"]


async def test_a_body_as_curl_labels_it_is_told_what_to_ask_of_curl(client: httpx.AsyncClient, seven: bytes) -> None:
    headers = {"content-type": "application/x-www-form-urlencoded"}
    for path, option in (("/predict", "-F file=@"), ("/predict/batch", "-F files=@")):
        answer = await client.post(path, content=seven, headers=headers)
        assert_error(answer, 415, "unsupported_media_type")
        assert option in answer.json()["error"]


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "deflate", "br", "gzip, identity"])
async def test_a_compressed_upload_is_told_that_pictures_come_as_they_are(
    client: httpx.AsyncClient, seven: bytes, coding: str
) -> None:
    headers = {**PNG, "content-encoding": coding}
    for answer in (
        await client.post("/predict", content=gzip.compress(seven), headers=headers),
        await client.post("/predict/batch", files={"files": seven}, headers={"content-encoding": coding}),
    ):
        assert_error(answer, 415, "unsupported_media_type")
        assert answer.headers["accept-encoding"] == "identity"
        assert coding.partition(",")[0] in answer.json()["error"]


@pytest.mark.parametrize("coding", ["identity", "Identity", ""])
async def test_an_upload_may_say_that_it_is_not_compressed(
    client: httpx.AsyncClient, seven: bytes, coding: str
) -> None:
    headers = {**PNG, "content-encoding": coding}
    assert (await client.post("/predict", content=seven, headers=headers)).status_code == 200


async def test_an_upload_of_another_type_is_told_nothing_of_codings(client: httpx.AsyncClient) -> None:
    assert "accept-encoding" not in (await client.post("/predict", json={})).headers


async def test_a_form_without_the_field_says_which_fields_it_has(client: httpx.AsyncClient, seven: bytes) -> None:
    response = await client.post("/predict", files={"picture": ("seven.png", seven)})
    assert_error(response, 400, "malformed_request")
    assert "'picture'" in response.json()["error"]


async def test_a_form_with_two_pictures_is_sent_to_the_batch_call(client: httpx.AsyncClient, seven: bytes) -> None:
    response = await client.post("/predict", files=[("file", ("a.png", seven)), ("file", ("b.png", seven))])
    assert_error(response, 400, "malformed_request")
    assert "/predict/batch" in response.json()["error"]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"--x\r\n"),
        ("multipart/form-data; boundary=x", b""),
        ("multipart/form-data; boundary=x", b"not a form at all"),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nabc'),
        (
            "multipart/form-data; boundary=x",
            b"--x\r\nContent-Disposition: " + b"a" * 20_000 + b"\r\n\r\nabc\r\n--x--\r\n",
        ),
    ],
)
async def test_a_broken_form_is_400(client: httpx.AsyncClient, content_type: str, body: bytes) -> None:
    response = await client.post("/predict", content=body, headers={"content-type": content_type})
    assert_error(response, 400, "malformed_request")


async def test_a_text_field_named_file_is_told_what_to_send(client: httpx.AsyncClient) -> None:
    as_text = await client.post("/predict", files={"file": (None, b"7.png")})
    assert_error(as_text, 415, "unsupported_format")
    assert "JPEG" in as_text.json()["error"]


async def test_the_declared_type_and_the_name_decide_nothing(client: httpx.AsyncClient, seven: bytes) -> None:
    expected = (await client.post("/predict", content=seven, headers=PNG)).json()
    disguised = await client.post("/predict", files={"file": ("seven.pdf", seven, "application/pdf")})
    assert disguised.json() == expected
    assert_error(await client.post("/predict", content=b"%PDF-1.7", headers=PNG), 415, "unsupported_format")


async def test_formats_that_are_not_accepted_are_415_on_both_calls(open_client: OpenClient, seven: bytes) -> None:
    client = await open_client(accepted_formats="jpeg,webp")
    for response in (
        await client.post("/predict", content=seven, headers=PNG),
        await client.post("/predict", files={"file": ("seven.jpg", seven, "image/jpeg")}),
    ):
        assert_error(response, 415, "unsupported_format")
        assert response.json()["error"] == "This is PNG; send JPEG or WebP."
    jpeg = pillow(Pillow.open(io.BytesIO(seven)), "JPEG")
    entries = (await client.post("/predict/batch", files=[("files", seven), ("files", jpeg)])).json()["predictions"]
    assert entries[0]["error"] == "This is PNG; send JPEG or WebP."
    assert entries[1]["label"] == (await client.post("/predict", content=jpeg, headers=PNG)).json()["label"]


async def test_a_picture_beyond_a_limit_fails_alone_in_a_batch(open_client: OpenClient, seven: bytes) -> None:
    client = await open_client(max_pixels=28 * 28)
    files = [("files", seven), ("files", png_of(28, 29)), ("files", progressive_jpeg(16, 16, scans=100))]
    entries = (await client.post("/predict/batch", files=files)).json()["predictions"]
    assert "label" in entries[0]
    assert [entry["code"] for entry in entries[1:]] == ["image_too_large", "undecodable_image"]


async def test_a_form_of_very_many_fields_is_refused(open_client: OpenClient, seven: bytes) -> None:
    client = await open_client(max_form_fields=3)
    few = {f"note{index}": "a" for index in range(3)}
    assert (await client.post("/predict", data=few, files={"file": seven})).status_code == 200
    many = await client.post("/predict", data={**few, "one": "more"}, files={"file": seven})
    assert_error(many, 400, "malformed_request")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})])
async def test_a_picture_stored_in_any_orientation_gets_the_answer_of_the_upright_one(
    client: httpx.AsyncClient, seven: bytes, kind: str, options: dict[str, Any], orientation: int
) -> None:
    upright = Pillow.open(io.BytesIO(seven))
    to_stored = {
        2: Pillow.Transpose.FLIP_LEFT_RIGHT,
        3: Pillow.Transpose.ROTATE_180,
        4: Pillow.Transpose.FLIP_TOP_BOTTOM,
        5: Pillow.Transpose.TRANSPOSE,
        6: Pillow.Transpose.ROTATE_90,
        7: Pillow.Transpose.TRANSVERSE,
        8: Pillow.Transpose.ROTATE_270,
    }
    stored = upright.transpose(to_stored[orientation]) if orientation > 1 else upright
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    out = io.BytesIO()
    stored.convert("RGB" if kind == "WEBP" else "L").save(out, kind, exif=exif, **options)
    expected = (await client.post("/predict", content=seven, headers=PNG)).content
    assert (await client.post("/predict", content=out.getvalue(), headers=PNG)).content == expected


async def test_a_drawing_on_nothing_gets_the_answer_of_the_same_drawing_on_white(
    client: httpx.AsyncClient, seven: bytes
) -> None:
    ink = np.asarray(Pillow.open(io.BytesIO(seven)).convert("L"))
    transparent, opaque = io.BytesIO(), io.BytesIO()
    Pillow.fromarray(np.dstack([np.zeros_like(ink), ink])).save(transparent, "PNG")  # black, as opaque as there is ink
    Pillow.fromarray(255 - ink).save(opaque, "PNG")
    answers = [await client.post("/predict", content=each.getvalue(), headers=PNG) for each in (transparent, opaque)]
    assert answers[0].content == answers[1].content


async def test_too_many_bytes_are_refused_while_they_are_read(open_client: OpenClient, seven: bytes) -> None:
    client = await open_client(max_upload_bytes=100)
    assert_error(await client.post("/predict", content=seven, headers=PNG), 413, "upload_too_large")

    async def endless() -> object:
        while True:
            yield seven

    chunked = await client.post("/predict", content=endless(), headers=PNG)  # type: ignore[arg-type]
    assert_error(chunked, 413, "upload_too_large")


async def test_too_many_pixels_are_refused_before_decoding(open_client: OpenClient, seven: bytes) -> None:
    client = await open_client(max_pixels=28 * 28)
    assert (await client.post("/predict", content=seven, headers=PNG)).status_code == 200
    assert_error(await client.post("/predict", content=png_of(28, 29), headers=PNG), 413, "image_too_large")


async def test_large_pictures_are_decoded_off_the_event_loop_and_answered_alike(client: httpx.AsyncClient) -> None:
    small = np.arange(256, dtype=np.uint8).reshape(16, 16)
    large = small.repeat(64, axis=0).repeat(64, axis=1)  # area averaging undoes it at 16×16, and nearly so at 28×28
    for picture in (small, large):
        response = await client.post("/predict", content=cv2.imencode(".png", picture)[1].tobytes(), headers=PNG)
        assert response.status_code == 200


async def test_a_batch_has_an_entry_for_each_picture_and_a_bad_one_fails_alone(
    client: httpx.AsyncClient, mnist_pictures: list[tuple[Path, str]]
) -> None:
    pictures = [path.read_bytes() for path, _ in mnist_pictures[:20]]
    alone = [(await client.post("/predict", content=data, headers=PNG)).json() for data in pictures]
    files = [("files", (f"{index}.png", data)) for index, data in enumerate(pictures)]
    files.insert(5, ("files", ("bad.txt", b"not a picture")))
    response = await client.post("/predict/batch", files=files)
    assert response.status_code == 200
    BatchAnswer.model_validate(response.json())
    entries = response.json()["predictions"]
    bad = entries.pop(5)
    assert bad["file"] == "bad.txt"
    assert bad["code"] == "unsupported_format"
    assert [entry.pop("file") for entry in entries] == [f"{index}.png" for index in range(20)]
    for entry, single in zip(entries, alone, strict=True):
        assert entry["label"] == single["label"]
        assert entry["probabilities"] == pytest.approx(single["probabilities"], abs=1e-5)
    assert response.json()["model"] == alone[0]["model"]


async def test_a_batch_is_bounded_in_pictures_and_bytes(open_client: OpenClient, seven: bytes) -> None:
    client = await open_client(max_batch_pictures=2, max_batch_bytes=5_000, max_upload_bytes=1_000)
    three = [("files", ("a.png", seven))] * 3
    assert_error(await client.post("/predict/batch", files=three), 400, "malformed_request")
    heavy = [("files", ("a.png", seven + bytes(6_000)))]
    assert_error(await client.post("/predict/batch", files=heavy), 413, "upload_too_large")
    mixed = [("files", ("a.png", seven)), ("files", ("b.png", seven + bytes(1_000)))]
    entries = (await client.post("/predict/batch", files=mixed)).json()["predictions"]
    assert "label" in entries[0]
    assert entries[1]["code"] == "upload_too_large"


@pytest.mark.parametrize(
    "name", ["C:\\Users\\me\\a.png", "\\\\server\\share\\a.png", "a\\", 'a"b.png', "größe 50%20.png", "a;b=c.png"]
)
async def test_a_batch_tells_a_file_name_as_it_was_sent(client: httpx.AsyncClient, seven: bytes, name: str) -> None:
    as_browsers = name.replace('"', "%22").encode()
    part = b'Content-Disposition: form-data; name="files"; filename="%b"\r\n\r\n%b' % (as_browsers, seven)
    headers = {"content-type": "multipart/form-data; boundary=XB"}
    answer = await client.post("/predict/batch", content=b"--XB\r\n%b\r\n--XB--\r\n" % part, headers=headers)
    assert [entry["file"] for entry in answer.json()["predictions"]] == [name]


async def test_a_batch_is_a_form(client: httpx.AsyncClient, seven: bytes) -> None:
    assert_error(await client.post("/predict/batch", content=seven, headers=PNG), 415, "unsupported_media_type")


async def test_more_than_the_service_may_hold_is_refused_with_a_time_to_come_back(
    open_client: OpenClient, seven: bytes
) -> None:
    client = await open_client(max_pending=1)
    both = await client.post("/predict/batch", files=[("files", ("a.png", seven))] * 2)
    assert_error(both, 503, "overloaded")
    assert int(both.headers["retry-after"]) >= 1
    assert (await client.post("/predict", content=seven, headers=PNG)).status_code == 200


async def test_a_passed_deadline_is_504(open_client: OpenClient, seven: bytes) -> None:
    client = await open_client(request_timeout_s=1e-9)
    assert_error(await client.post("/predict", content=seven, headers=PNG), 504, "deadline_exceeded")


async def test_a_batch_whose_deadline_passes_is_504_as_a_whole(open_client: OpenClient, seven: bytes) -> None:
    client = await open_client(request_timeout_s=1e-9)
    files = [("files", ("a.png", seven))] * 3
    assert_error(await client.post("/predict/batch", files=files), 504, "deadline_exceeded")


async def test_good_and_bad_requests_mixed_at_once_do_not_touch_each_other(
    client: httpx.AsyncClient, mnist_pictures: list[tuple[Path, str]]
) -> None:
    good = [path.read_bytes() for path, _ in mnist_pictures]
    alone = [(await client.post("/predict", content=data, headers=PNG)).json() for data in good]
    bad = [b"", b"junk", good[0][:70], png_of(1, 1)[:-20]]
    requests = [client.post("/predict", content=data, headers=PNG) for data in good]
    spoilers = [client.post("/predict", content=data, headers=PNG) for data in bad * 20]
    answers = await asyncio.gather(*(call for pair in zip(requests, spoilers, strict=True) for call in pair))
    for single, answer in zip(alone, answers[::2], strict=True):
        assert answer.json()["label"] == single["label"]
        assert answer.json()["probabilities"] == pytest.approx(single["probabilities"], abs=1e-5)
    assert {answer.status_code for answer in answers[1::2]} == {415, 422}


async def test_the_form_may_hold_other_fields_before_and_after(client: httpx.AsyncClient, seven: bytes) -> None:
    response = await client.post("/predict", data={"note": "mine"}, files={"file": ("siebén.png", seven)})
    assert response.status_code == 200


async def test_probabilities_are_numbers_that_json_can_hold(client: httpx.AsyncClient, seven: bytes) -> None:
    text = (await client.post("/predict", content=seven, headers=PNG)).text
    assert all(0 <= value <= 1 for value in json.loads(text)["probabilities"].values())


@pytest.mark.parametrize(("minimum", "decision"), [(0, "label"), (0.5, "label"), (1, "unsure")])
async def test_a_minimum_probability_makes_an_answer_sure_or_not(
    client: httpx.AsyncClient, seven: bytes, minimum: float, decision: str
) -> None:
    plain = (await client.post("/predict", content=seven, headers=PNG)).json()
    assert "decision" not in plain
    assert 0.5 < plain["probability"] < 1
    for query in ({}, {"top_k": 10}):
        response = await client.post(
            "/predict", content=seven, headers=PNG, params={"min_probability": minimum, **query}
        )
        answer = response.json()
        assert PredictionAnswer.model_validate(answer).decision == decision
        assert {name: value for name, value in answer.items() if name != "decision"} == plain


async def test_a_minimum_is_met_by_the_probability_that_the_answer_shows(
    client: httpx.AsyncClient, seven: bytes
) -> None:
    shown = (await client.post("/predict", content=seven, headers=PNG)).json()["probability"]
    again = await client.post("/predict", content=seven, headers=PNG, params={"min_probability": shown})
    assert again.json()["decision"] == "label"


async def test_the_request_s_minimum_goes_before_the_setting_s(open_client: OpenClient, seven: bytes) -> None:
    client = await open_client(min_probability=1.0)
    files = {"files": ("seven.png", seven)}
    unsure = (await client.post("/predict/batch", files=files)).json()
    sure = (await client.post("/predict/batch", files=files, params={"min_probability": 0.5})).json()
    BatchAnswer.model_validate(unsure)
    decisions = [answer["predictions"][0]["decision"] for answer in (unsure, sure)]
    assert decisions == ["unsure", "label"]


async def test_the_setting_s_minimum_goes_before_the_bundle_s(
    open_client: OpenClient, copy_of_store: Path, seven: bytes
) -> None:
    path = copy_of_store / "digits" / "1" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "min_probability": 1.0}), encoding="utf-8")
    for settings, decision in (({}, "unsure"), ({"min_probability": 0.5}, "label")):
        client = await open_client(model_store=copy_of_store, **settings)
        answer = (await client.post("/predict", content=seven, headers=PNG)).json()
        assert answer["decision"] == decision


@pytest.mark.parametrize("minimum", ["-0.1", "1.1", "nan", "much"])
async def test_a_minimum_that_is_no_probability_is_refused(
    client: httpx.AsyncClient, seven: bytes, minimum: str
) -> None:
    response = await client.post("/predict", content=seven, headers=PNG, params={"min_probability": minimum})
    assert_error(response, 400, "malformed_request")
