"""The form splitter against what clients send, what they should not send, and an independent parser."""

import re
import sys
from email.utils import encode_rfc2231
from typing import Any

import httpx
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from urllib3.filepost import encode_multipart_formdata

from app.api.bodies.multipart import Part, boundary_of, split_form
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
    assert [part.filename for part in parts] == [None, "größe.png", 'a"b.txt']


@pytest.mark.parametrize(
    "data",
    [b"", b"\r\n", b"\r\n\r\n", b"--xyz", b"\r\n--xy", b"\r\n--xyzz", b"\r\n--xyz-\r\n", b"\r\n-xyz--", b"\n--xyz--\n"],
)
def test_data_that_looks_like_a_boundary_is_data(data: bytes) -> None:
    assert split(form(HEADER + data)) == [Part("file", "a.png", data)]


@pytest.mark.parametrize("end", [b"\r\n--xyz--", b""], ids=["whole", "cut off"])
def test_data_that_looks_like_boundaries_costs_no_step_for_each(end: bytes) -> None:
    def steps(count: int) -> int:
        events: list[str] = []

        def note(_frame: Any, event: str, _what: Any) -> None:
            events.append(event)

        body = b"--xyz\r\n" + HEADER + b"\r\n--xyza" * count + end
        sys.setprofile(note)
        try:
            split(body)
        except MalformedRequest:
            assert not end
        finally:
            sys.setprofile(None)
        return len(events)

    steps(2)  # expressions are compiled once
    assert steps(2) == steps(2000)


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
        # Blanks, lines, and parameters that do not matter.
        (b'Content-Disposition : form-data ; name = "file" ;\tfilename\t=\ta.png ;', "file", "a.png"),
        (b'Content-Disposition: form-data;\r\n name="file";\r\n\tfilename="a.png"', "file", "a.png"),
        (b'Content-Disposition:\r\n form-data; name="file"\r\n ; filename="a.png"\r\nX: y', "file", "a.png"),
        (b'Content-Disposition: form-data; name="file"; filename="a\r\n b.png"', "file", "a b.png"),
        (b'Content-Disposition: form-data; name="file"\r\n ;filename=a.png', "file", "a.png"),
        (b'CONTENT-DISPOSITION: form-data; NAME=file; FileName="a.png"; size=3; x; =;', "file", "a.png"),
        (b'Content-Disposition: form-data; x="; name=no; \\"; name="file"; filename="a.png"', "file", "a.png"),
        (b"Content-Disposition: form-data; name=file; filename=my own.png", "file", "my own.png"),
        (b'Content-Disposition: form-data; filename-x="no"; name="file"', "file", None),
        # Backslashes and quotation marks: raw, percent-encoded, or escaped.
        (rb'Content-Disposition: form-data; name="file"; filename="C:\dir\x.png"', "file", r"C:\dir\x.png"),
        (rb'Content-Disposition: form-data; name="file"; filename="C:\\dir\\x.png"', "file", r"C:\dir\x.png"),
        (rb'Content-Disposition: form-data; name="file"; filename="\\srv\dir\x.png"', "file", r"\\srv\dir\x.png"),
        (rb'Content-Disposition: form-data; name="file"; filename="\\\\srv\\x.png"', "file", r"\\srv\x.png"),
        (rb'Content-Disposition: form-data; name="file"; filename="dir\"', "file", "dir\\"),
        (rb'Content-Disposition: form-data; filename="dir\"; name="file"', "file", "dir\\"),
        (rb'Content-Disposition: form-data; name="file"; filename="dir\\"', "file", "dir\\"),
        (rb'Content-Disposition: form-data; name="file"; filename="\"; a=\"b.png"', "file", '"; a="b.png'),
        (rb'Content-Disposition: form-data; name="file"; filename="C:\dir\a\"b.png"', "file", r'C:\dir\a"b.png'),
        (rb'Content-Disposition: form-data; name="file"; filename="C:\a%22b.png"', "file", r'C:\a"b.png'),
        (b'Content-Disposition: form-data; name="file"; filename="a"b.png"', "file", 'a"b.png'),
        (b'Content-Disposition: form-data; name="%22"; filename="a%0D%0Ab 50%25 %20%"', '"', "a\r\nb 50%25 %20%"),
        (b"Content-Disposition: form-data; name=file; filename=%22a", "file", "%22a"),
        # Extended values.
        (b"Content-Disposition: form-data; name=file; filename*=utf-8''%C3%A9%22.png", "file", 'é".png'),
        (b"Content-Disposition: form-data; name=file; filename=e; filename*=UTF-8'fr'%c3%a9", "file", "é"),
        (b"Content-Disposition: form-data; filename*=iso-8859-1''%E9; filename=e; name=file", "file", "é"),
        (b"Content-Disposition: form-data; name=file; filename* = \"utf-8''a%20b\"", "file", "a b"),
        (b"Content-Disposition: form-data; name*=utf-8''f%C3%AF; filename=a", "fï", "a"),
        (b"Content-Disposition: form-data; name=file; filename*=utf-8''%E9; filename=e", "file", "e"),
        (b"Content-Disposition: form-data; name=file; filename*=utf-8''100%; filename=e", "file", "e"),
        (b"Content-Disposition: form-data; name=file; filename*=idna''xn--a; filename=e", "file", "e"),
        (b"Content-Disposition: form-data; name=file; filename*=e", "file", None),
    ],
)
def test_names_are_read_as_clients_write_them(header: bytes, name: str, filename: str | None) -> None:
    assert split(form(header + b"\r\n\r\none")) == [Part(name, filename, b"one")]


def as_browsers_write(name: str) -> bytes:
    """The HTML standard's way; so do curl, requests and Node."""
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A").encode()


def as_go_writes(name: str) -> bytes:
    """With every backslash and quotation mark escaped; so do curl before 7.81 and Apache's client."""
    return name.replace("\\", "\\\\").replace('"', '\\"').encode()


def in_a_form(name: bytes, filename: bytes) -> bytes:
    return form(b'Content-Disposition: form-data; name="%b"; filename="%b"\r\n\r\none' % (name, filename))


NAMES = st.text(st.sampled_from("ab \\\\\";:=%'./é") | st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)
UNENCODED = NAMES.filter(lambda name: not any(code in name for code in ("%22", "%0A", "%0D")))


@given(UNENCODED, UNENCODED)
def test_every_name_that_is_escaped_comes_back(name: str, filename: str) -> None:
    assert split(in_a_form(as_go_writes(name), as_go_writes(filename))) == [Part(name, filename, b"one")]


@given(UNENCODED.map(lambda name: name.replace("\\", "/")), UNENCODED | st.just("a\r\nb"))
def test_every_name_that_a_browser_sends_comes_back_unless_it_looks_escaped(name: str, filename: str) -> None:
    assume("\\\\" not in filename)
    body = in_a_form(as_browsers_write(name), as_browsers_write(filename))
    assert split(body) == [Part(name, filename, b"one")]


@given(UNENCODED, UNENCODED.filter(bool))
def test_every_name_that_httpx_sends_comes_back(name: str, filename: str) -> None:
    request = httpx.Request("POST", "http://service", files=[(name, (filename, b"one"))])
    parts = split_form(request.read(), boundary_of(request.headers["content-type"]), max_parts=1)
    assert parts == [Part(name, filename, b"one")]


@given(UNENCODED.map(lambda name: name.replace("\\", "/")), UNENCODED)
def test_every_name_that_requests_sends_comes_back_unless_it_looks_escaped(name: str, filename: str) -> None:
    assume("\\\\" not in filename)
    body, content_type = encode_multipart_formdata({name: (filename, b"one")})
    assert split_form(body, boundary_of(content_type), max_parts=1) == [Part(name, filename, b"one")]


@given(st.text(st.characters(exclude_categories=["Cs"])), st.sampled_from(["utf-8", "UTF-8", "iso-8859-1"]))
def test_every_extended_name_comes_back(filename: str, charset: str) -> None:
    filename = filename.encode(charset, "ignore").decode(charset)
    value = encode_rfc2231(filename, charset, "en")
    header = f'Content-Disposition: form-data; name="file"; filename="?"; filename*={value}'
    assert split(form(header.encode() + b"\r\n\r\none")) == [Part("file", filename, b"one")]


@given(st.text(st.characters(categories=["L", "N"]), max_size=300))
def test_a_header_that_is_folded_is_the_header(filename: str) -> None:
    header = f'Content-Disposition: form-data; x="{filename}"; name="file"; filename="{filename}"'
    folded = header.replace("; ", ";\r\n\t \t").encode()
    assert split(form(folded + b"\r\n\r\none")) == [Part("file", filename, b"one")]


PLAIN = st.text(st.characters(codec="latin-1", exclude_characters='"\\\r\n%', exclude_categories=["Cc"]), max_size=20)


@given(PLAIN, PLAIN)
def test_plain_names_are_read_as_the_independent_parser_reads_them(name: str, filename: str) -> None:
    value = f'form-data; name="{name}"; filename="{filename}"'.encode()
    _, options = parse_options_header(value)
    (part,) = split(form(b"Content-Disposition: " + value + b"\r\n\r\none"))
    assert (part.name.encode(), part.filename) == (options[b"name"], options[b"filename"].decode())


@pytest.mark.parametrize(
    ("disposition", "words"),
    [
        (b'form-data; name="file"; name="other"', "'name' twice"),
        (b'form-data; name="file"; filename=a; FileName="a"', "'filename' twice"),
        (b"form-data; name=file; filename*=utf-8''a; filename*=utf-8''a", "'filename*' twice"),
        (b'form-data; name=file; filename="a.png', "not closed, in 'filename'"),
        (b'form-data; name="', "not closed, in 'name'"),
        (b'form-data; name=file; filename="a"b"c', "not closed, in 'filename'"),
    ],
)
def test_names_that_can_be_read_in_two_ways_are_refused(disposition: bytes, words: str) -> None:
    with pytest.raises(MalformedRequest, match=re.escape(words)):
        split(form(b"Content-Disposition: " + disposition + b"\r\n\r\none"))


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
        ('multipart/form-data; charset="utf-8"; boundary=xyz', b"xyz"),
        ('multipart/form-data; x="; boundary=no; \\""; boundary="xyz"', b"xyz"),
        ("multipart/form-data; boundary=----=_Part_1/2:3?4", b"----=_Part_1/2:3?4"),
        ("multipart/form-data; boundary=*****", b"*****"),
        ("multipart/form-data; boundary='(),.+_-'", b"'(),.+_-'"),
        ('multipart/form-data; boundary="x\\y\\z"', b"xyz"),
        ("multipart/form-data ;\tBOUNDARY = xyz;", b"xyz"),
        ("multipart/form-data; x; boundary=xyz; ;", b"xyz"),
        ("multipart/form-data; boundary=" + "x" * 70, b"x" * 70),
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
        "multipart/form-data; boundary=xyz; boundary=xyz",
        'multipart/form-data; boundary=xyz; Boundary="abc"',
        'multipart/form-data; boundary="xyz',
        'multipart/form-data; charset="utf-8; boundary=xyz',
        "multipart/form-data; boundary*=utf-8''xyz",
        "multipart/form-data boundary=xyz",
        'multipart/form-data; boundary=x"y',
        "multipart/form-data; boundary",
    ],
)
def test_a_boundary_that_is_none_is_refused(content_type: str) -> None:
    with pytest.raises(MalformedRequest):
        boundary_of(content_type)


@given(st.from_regex(r"[A-Za-z0-9'()+_,./:=?-]{1,70}", fullmatch=True), st.booleans())
def test_whatever_a_boundary_may_be_it_is_read_without_quotes_and_beside_others(text: str, first: bool) -> None:
    parameters = [f"boundary={text}", 'charset="a;b\\"c"']
    content_type = "; ".join(["multipart/form-data", *(parameters if first else parameters[::-1])])
    assert boundary_of(content_type) == text.encode()


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
