"""The form splitter against what clients send, what they should not send, and an independent parser."""

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser

from app.api.multipart import Part, boundary_of, split_form
from app.errors import MalformedRequest

BOUNDARY = b"xyz"
HEADER = b'Content-Disposition: form-data; name="file"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'


def form(*parts: bytes, boundary: bytes = BOUNDARY) -> bytes:
    return b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts) + b"--" + boundary + b"--\r\n"


def split(body: bytes) -> list[Part]:
    return split_form(body, BOUNDARY, max_parts=100)


def test_a_form_of_more_parts_than_allowed_is_refused_at_the_first_too_many() -> None:
    three = form(HEADER + b"one", HEADER + b"two", HEADER + b"three")
    assert len(split_form(three, BOUNDARY, max_parts=3)) == 3
    with pytest.raises(MalformedRequest, match="more than 2 parts"):
        split_form(three, BOUNDARY, max_parts=2)


def test_a_form_is_split_into_its_parts_in_order() -> None:
    body = form(HEADER + b"one", b'Content-Disposition: form-data; name="note"\r\n\r\ntwo')
    assert split(body) == [Part("file", "a.png", b"one"), Part("note", None, b"two")]


def test_what_httpx_sends_is_read_back() -> None:
    files = [("file", ("größe.png", b"\r\n--\x00\xff", "image/png")), ("other", ('a"b.txt', b"", "text/plain"))]
    request = httpx.Request("POST", "http://service", files=files, data={"note": "mine"})
    parts = split_form(request.read(), boundary_of(request.headers["content-type"]), max_parts=10)
    assert [(part.name, part.data) for part in parts] == [
        ("note", b"mine"),
        ("file", b"\r\n--\x00\xff"),
        ("other", b""),
    ]
    assert parts[1].filename == "größe.png"


@pytest.mark.parametrize(
    "data",
    [b"", b"\r\n", b"\r\n\r\n", b"--xyz", b"\r\n--xy", b"\r\n--xyzz", b"\r\n--xyz-\r\n", b"\r\n-xyz--", b"\n--xyz--\n"],
)
def test_data_that_looks_like_a_boundary_is_data(data: bytes) -> None:
    assert split(form(HEADER + data)) == [Part("file", "a.png", data)]


def test_text_before_the_first_and_after_the_last_boundary_is_ignored() -> None:
    body = b"preamble\r\n" + form(HEADER + b"one") + b"epilogue --xyz\r\n"
    assert split(body) == [Part("file", "a.png", b"one")]


def test_blanks_after_a_boundary_are_allowed() -> None:
    assert split(form(HEADER + b"one").replace(b"--xyz\r\n", b"--xyz \t\r\n", 1))[0].data == b"one"


def test_an_empty_form_has_no_parts() -> None:
    assert split(b"--xyz--\r\n") == []


@pytest.mark.parametrize(
    ("header", "name", "filename"),
    [
        (b"content-disposition: FORM-DATA; name=file", "file", None),
        (b'Content-Disposition:form-data;name="file";filename=a.png', "file", "a.png"),
        (b'Content-Disposition: form-data; filename="a;b.png"; name="file"', "file", "a;b.png"),
        (b'Content-Disposition: form-data; name="file"; filename="a\\"b.png"', "file", 'a"b.png'),
        (b'Content-Disposition: form-data; name=""; filename=""', "", ""),
        (b'X: y\r\nContent-Disposition: form-data; name="file"', "file", None),
        ('Content-Disposition: form-data; name="file"; filename="é.png"'.encode(), "file", "é.png"),
        (b'Content-Disposition: form-data; name="file"; filename="\xff.png"', "file", "�.png"),
    ],
)
def test_names_are_read_as_clients_write_them(header: bytes, name: str, filename: str | None) -> None:
    assert split(form(header + b"\r\n\r\none")) == [Part(name, filename, b"one")]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"xyz",
        b"--xyz",
        b"--xyz\r\n",
        b"--xyz\r\n" + HEADER,
        b"--xyz\r\n" + HEADER + b"one",
        b"--xyz\r\n" + HEADER + b"one\r\n--xyz",
        b"--xyz\r\n" + HEADER + b"one\r\n--xyz\r\n",
        b"--xyz\r\n" + HEADER + b"one--xyz--\r\n",
        b"--xyz junk\r\n" + HEADER + b"one\r\n--xyz--\r\n",
        b"--xyz\n" + HEADER + b"one\r\n--xyz--\r\n",
        form(b"one"),
        form(b"\r\none"),
        form(b"Content-Type: image/png\r\n\r\none"),
        form(b'Content-Disposition: attachment; name="file"\r\n\r\none'),
        form(b"X: " + b"y" * 10_000 + b"\r\n" + HEADER + b"one"),
        b"--xyz" + b" " * 10_000 + b"\r\n" + HEADER + b"one\r\n--xyz--\r\n",
    ],
)
def test_a_broken_form_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedRequest):
        split(body)


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/form-data; boundary=xyz", b"xyz"),
        ("Multipart/Form-Data;boundary=xyz", b"xyz"),
        ("multipart/form-data; charset=utf-8; boundary=----WebKitFormBoundaryA1", b"----WebKitFormBoundaryA1"),
        ('multipart/form-data; boundary="a b:c"', b"a b:c"),
        ("multipart/form-data; boundary=xyz ; charset=utf-8", b"xyz"),
    ],
)
def test_the_boundary_is_read_from_the_content_type(content_type: str, boundary: bytes) -> None:
    assert boundary_of(content_type) == boundary


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary=""',
        'multipart/form-data; boundary="a b "',
        "multipart/form-data; boundary=a b",
        "multipart/form-data; boundary=ä",
        "multipart/form-data; boundary=" + "x" * 71,
        "multipart/form-data; boundary=x\u0660",
    ],
)
def test_a_boundary_that_is_none_is_refused(content_type: str) -> None:
    with pytest.raises(MalformedRequest):
        boundary_of(content_type)


@given(
    st.from_regex(r"[A-Za-z0-9'()+_,./:=? -]{0,69}[A-Za-z0-9'()+_,./:=?-]", fullmatch=True),
    st.lists(st.binary(max_size=40), max_size=4),
)
def test_whatever_a_boundary_may_be_the_parts_come_back_as_they_were(text: str, contents: list[bytes]) -> None:
    boundary = boundary_of(f'multipart/form-data; boundary="{text}"')
    assert boundary == text.encode()
    contents = [data for data in contents if boundary not in data]
    body = form(*(HEADER + data for data in contents), boundary=boundary)
    assert [part.data for part in split_form(body, boundary, max_parts=4)] == contents


def by_oracle(body: bytes) -> list[bytes] | None:
    """The data of every part as python-multipart reads it, None where it refuses."""
    found: list[bytearray] = []
    ended: list[bool] = []
    parser = MultipartParser(
        BOUNDARY,
        {
            "on_part_begin": lambda: found.append(bytearray()),
            "on_part_data": lambda data, start, end: found[-1].extend(data[start:end]),
            "on_end": lambda: ended.append(True),
        },
    )
    try:
        parser.write(body)
        parser.finalize()
    except MultipartParseError:
        return None
    return [bytes(data) for data in found] if ended else None


TRICKY = st.lists(
    st.sampled_from([b"\r\n", b"--", b"xyz", b"\n", b"\r", b"-", b"a", b"\x00", b"\r\n--xy"]), max_size=12
)


@given(st.lists(TRICKY.map(b"".join), max_size=4))
def test_every_well_made_form_is_read_as_the_independent_parser_reads_it(contents: list[bytes]) -> None:
    contents = [data for data in contents if b"\r\n--xyz" not in data]
    body = form(*(HEADER + data for data in contents))
    assert [part.data for part in split(body)] == contents
    if contents:  # python-multipart knows no empty form
        assert by_oracle(body) == contents


@given(st.data())
def test_a_damaged_form_is_refused_or_read_as_the_independent_parser_reads_it(data: st.DataObject) -> None:
    body = bytearray(form(HEADER + b"one", HEADER + b"two"))
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(body) - 1))
        body[position : position + data.draw(st.integers(0, 3))] = data.draw(TRICKY.map(b"".join))
    try:
        parts = split(bytes(body))
    except MalformedRequest:
        return
    oracle = by_oracle(bytes(body))
    if oracle is not None and not body.startswith(b"\r"):
        assert [part.data for part in parts] == oracle
