"""Each rule of RFC 9112, sections 6 and 7, that a body has to obey, without a connection."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.http1.body import BodyByLength, BodyInChunks
from app.errors import HeadersTooLarge, MalformedRequest

LIMIT = 64
CHUNKED = b"5\r\nhello\r\n1;a=b\r\n,\r\nA\r\n0123456789\r\n0\r\nX: y\r\nZ:\r\n\r\n"
CONTENT = b"hello,0123456789"
NEXT = b"GET / HTTP/1.1\r\n"


def read(body: BodyByLength | BodyInChunks, pieces: list[bytes]) -> tuple[bytes, bytes]:
    """Return the content, and what follows the body."""
    content = rest = b""
    for piece in pieces:
        position = 0
        while position < len(piece) and not body.is_complete:
            found, position = body.read(piece, position)
            content += found
        rest += piece[position:]
    return content, rest


def segments(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted({cut for cut in cuts if 0 < cut < len(data)}), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(places)]


def bytewise(data: bytes) -> list[bytes]:
    return [bytes([byte]) for byte in data]


def rejects(data: bytes, says: str = ".") -> None:
    """Fail unless the body is rejected, in one piece and byte by byte, with no more content than it has."""
    for pieces in ([data], bytewise(data)):
        with pytest.raises(MalformedRequest, match=says):
            read(BodyInChunks(LIMIT), pieces)


@given(st.lists(st.integers(0, 30), max_size=6))
def test_a_body_by_length_is_so_many_bytes_in_any_segmentation(cuts: list[int]) -> None:
    body = BodyByLength(len(CONTENT))
    assert read(body, segments(CONTENT + NEXT, cuts)) == (CONTENT, NEXT)
    assert body.is_complete


def test_a_body_of_no_bytes_is_complete_at_once() -> None:
    body = BodyByLength(0)
    assert body.is_complete
    assert body.read(NEXT, 0) == (b"", 0)


def test_a_body_by_length_is_incomplete_until_its_last_byte() -> None:
    body = BodyByLength(2)
    assert body.read(b"xxa", 2) == (b"a", 3)
    assert not body.is_complete
    assert body.read(b"bc", 0) == (b"b", 1)
    assert body.is_complete


@given(st.lists(st.integers(0, len(CHUNKED + NEXT)), max_size=10))
def test_a_chunked_body_is_the_same_in_any_segmentation(cuts: list[int]) -> None:
    body = BodyInChunks(LIMIT)
    assert read(body, segments(CHUNKED + NEXT, cuts)) == (CONTENT, NEXT)
    assert body.is_complete


@pytest.mark.parametrize("end", range(len(CHUNKED)))
def test_a_chunked_body_is_incomplete_until_its_last_byte(end: int) -> None:
    body = BodyInChunks(LIMIT)
    content, rest = read(body, [CHUNKED[:end]] if end else [])
    assert CONTENT.startswith(content)
    assert (rest, body.is_complete) == (b"", False)


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.lists(st.integers(0, 300), max_size=10))
def test_any_content_in_any_chunks_is_what_was_sent(chunks: list[bytes], cuts: list[int]) -> None:
    data = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    assert read(BodyInChunks(LIMIT), segments(data + NEXT, cuts)) == (b"".join(chunks), NEXT)


@pytest.mark.parametrize(
    "size", [b"5", b"05", b"0" * 14 + b"5", b"5;ext", b"5;a=b", b"5;", b"5; a", b'5;a="b c"', b"5;a\tb", b"5;\xff"]
)
def test_a_size_is_hexadecimal_with_extensions_after_it(size: bytes) -> None:  # RFC 9112, sections 7.1 and 7.1.1
    assert read(BodyInChunks(LIMIT), [size + b"\r\nhello\r\n0\r\n\r\n"]) == (b"hello", b"")


@pytest.mark.parametrize(
    "size",
    [
        *(b"", b"5 ", b" 5", b"5\t", b"\t5", b"0x5", b"+5", b"-5", b"-0", b"5,", b"5 ;a", b"h", b"5.", b"5_0", b"5h"),
        *(b"0" * 15 + b"5", b"F" * 16, b"1" + b"0" * 16, b"5\0", b"\x005", b"5\r", b"\r5", b"\r\n5", b"5\x0b", b"\xb2"),
        *(b"5;\0", b"5;\r", b"5;\x7f", b"5;a\rb"),
    ],
)
def test_a_size_that_is_none_is_rejected(size: bytes) -> None:  # RFC 9112, section 7.1
    rejects(size + b"\r\nhello\r\n0\r\n\r\n")


@pytest.mark.parametrize(
    "data",
    [
        *(b"5\nhello\r\n0\r\n\r\n", b"5\r\nhello\n0\r\n\r\n", b"5\r\nhello\r\n0\n\r\n", b"5\r\nhello\r\n0\r\n\n"),
        *(b"5\r\nhello\r\n0\r\nX: y\n\r\n", b"5;a\nhello\r\n0\r\n\r\n"),
    ],
)
def test_a_line_that_ends_without_a_carriage_return_is_rejected(data: bytes) -> None:  # RFC 9112, section 2.2
    rejects(data)


@pytest.mark.parametrize("after", [b"!\r\n", b"\r!", b"\rhello", b"\r\r\n", b" \r\n", b"\n", b"0\r\n\r\n", b"\0"])
def test_a_chunk_that_is_longer_than_its_size_is_rejected_at_once(after: bytes) -> None:  # section 7.1
    rejects(b"5\r\nhello" + after, "longer than its size")


def test_a_chunk_that_is_shorter_than_its_size_takes_what_follows_and_is_rejected() -> None:  # section 7.1
    rejects(b"6\r\nhello\r\n0\r\n\r\n", "longer than its size")
    rejects(b"7\r\nhello\r\n0\r\n\r\n", "longer than its size")


@pytest.mark.parametrize(
    "trailer",
    [
        *(b"colonless", b"X : y", b" X: y", b"X: y\r\n folded", b": y", b"X: \0", b"X: a\rb", b"X Y: z", b"X\xff: y"),
        *(b"\t", b"Content-Length: 5", b"content-length:", b"TRANSFER-ENCODING: chunked"),
    ],
)
def test_a_trailer_that_is_no_field_is_rejected(trailer: bytes) -> None:  # RFC 9112, section 5; 9110, section 6.5.1
    rejects(b"0\r\n" + trailer + b"\r\n\r\n", "trailer")


@pytest.mark.parametrize("trailer", [b"X: y", b"Host: b", b"Content-Length-2: 5", b"Expect: 100-continue"])
def test_a_trailer_changes_nothing(trailer: bytes) -> None:  # RFC 9112, section 7.1.2
    assert read(BodyInChunks(LIMIT), [b"1\r\na\r\n0\r\n" + trailer + b"\r\n\r\n" + NEXT]) == (b"a", NEXT)


@pytest.mark.parametrize("framed", [b"0;%b\r\n\r\n", b"0\r\nX:%b\r\n\r\n"], ids=["extension", "trailer"])
def test_framing_may_have_as_many_bytes_as_the_limit_and_not_one_more(framed: bytes) -> None:
    filling = LIMIT - len(framed % b"")
    for pieces in (lambda data: [data], bytewise):
        body = BodyInChunks(LIMIT)
        read(body, pieces(framed % (b"a" * filling)))
        assert body.is_complete
        with pytest.raises(HeadersTooLarge, match=f"{LIMIT} bytes"):
            read(BodyInChunks(LIMIT), pieces(framed % (b"a" * (filling + 1))))


def test_framing_without_an_end_is_too_large_at_the_limit() -> None:
    body = BodyInChunks(LIMIT)
    read(body, [b"5;" + b"a" * (LIMIT - 2)])
    with pytest.raises(HeadersTooLarge):
        body.read(b"a", 0)


def test_chunks_of_one_byte_are_not_too_much_framing() -> None:
    content = b"x" * 10 * LIMIT
    assert read(BodyInChunks(LIMIT), [b"1\r\nx\r\n" * len(content) + b"0\r\n\r\n"]) == (content, b"")


def test_chunks_with_more_extensions_than_content_are_too_much_framing() -> None:
    with pytest.raises(HeadersTooLarge):
        read(BodyInChunks(LIMIT), [b"1;aaaaaaaa\r\nx\r\n" * LIMIT])


@pytest.mark.parametrize("begin", [b"1;", b"0\r\nX:"], ids=["extension", "trailer"])
def test_a_line_is_too_long_at_the_limit_however_much_content_came_before(begin: bytes) -> None:
    size = 100 * LIMIT
    body = BodyInChunks(LIMIT)
    read(body, [b"%x\r\n%b\r\n%b" % (size, b"x" * size, begin)])
    with pytest.raises(HeadersTooLarge):
        body.read(b"a" * LIMIT, 0)


def test_many_small_chunks_are_read_by_turns() -> None:
    data = b"1\r\nx\r\n" * 10_000
    body = BodyInChunks(LIMIT)
    content, position = body.read(data, 0)
    assert 0 < len(content) < 1000
    assert position == 6 * len(content)
    assert not body.is_complete
