from email.parser import BytesParser
from email.policy import HTTP
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.harness.request import BATCH_PICTURES, batches, multipart_post, raw_post
from benchmarks.harness.sized_pictures import sized_picture

_PNG = b"\x89PNG\r\n\x1a\nrest"
_JPEG = b"\xff\xd8\xffrest"


def _fields(request: bytes) -> list[tuple[str, bytes]]:
    """Read the form with the standard library's e-mail parser, once the length is found to be right."""
    start, _, rest = request.partition(b"\r\n")
    assert start.startswith(b"POST /predict")
    message = BytesParser(policy=HTTP).parsebytes(rest)
    assert len(rest.partition(b"\r\n\r\n")[2]) == int(message["Content-Length"])
    return [
        (str(part.get_param("name", header="Content-Disposition")), bytes(part.get_payload(decode=True)))
        for part in message.iter_parts()
    ]


def test_a_form_holds_the_picture_in_the_field_file() -> None:
    assert _fields(multipart_post(_PNG)) == [("file", _PNG)]


def test_a_raw_body_is_the_picture_and_says_its_kind() -> None:
    head, _, body = raw_post(_JPEG).partition(b"\r\n\r\n")
    assert body == _JPEG
    assert b"Content-Type: image/jpeg" in head


def test_batches_send_every_picture_and_are_always_full() -> None:
    pictures = [b"\x89PNG%d" % index for index in range(40)]
    found = [_fields(request) for request in batches(pictures)]
    assert [len(fields) for fields in found] == [BATCH_PICTURES] * 2
    assert {name for fields in found for name, _ in fields} == {"files"}
    assert {content for fields in found for _, content in fields} == set(pictures)


@pytest.mark.parametrize("size_bytes", [1_000, 10_000, 100_000, 1_000_000])
def test_a_sized_picture_has_about_its_size_and_can_be_read(data_folder: Path, size_bytes: int) -> None:
    photos = [file.read_bytes() for file in sorted((data_folder / "photos").glob("*.jpg"))]
    picture = sized_picture(photos, size_bytes)
    assert len(picture) == pytest.approx(size_bytes, rel=0.1)
    assert cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR) is not None
