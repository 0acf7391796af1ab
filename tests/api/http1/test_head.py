"""Each rule of RFC 9110 and 9112 that a request line and headers have to obey, without a connection."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.http1.head import Head, HeadReader
from app.errors import (
    HeadersTooLarge,
    MalformedRequest,
    RequestError,
    UnsupportedHttpVersion,
    UnsupportedTransferCoding,
)

LIMIT = 1024
GET = b"GET /a?b=c HTTP/1.1\r\nHost: a\r\n\r\n"
_BAD_NAMES = (b"X Y", b"X\tY", b" X", b"X ", b"X\t", b"X\0", b"X\x7f", b"X\xff", b"X(Y)", b"X/Y", b"X@Y", b'X"Y', b"")
_BAD_BYTES = b"\0\x01\x08\x0a\x0b\x0c\x0d\x1f\x7f"


def read(*pieces: bytes, limit: int = LIMIT) -> Head | None:
    """Return the head in the pieces, or None if it does not end in them; fail unless it ends with the last of them."""
    reader = HeadReader(limit)
    for number, piece in enumerate(pieces, 1):
        position = reader.read(piece)
        if position is not None:
            assert (number, position) == (len(pieces), len(piece))
            return reader.head()
    return None


def post(*headers: bytes, line: bytes = b"POST /predict HTTP/1.1", host: bytes = b"Host: a") -> bytes:
    return b"".join(each + b"\r\n" for each in (line, *([host] if host else []), *headers)) + b"\r\n"


def accepted(data: bytes) -> Head:
    head = read(data)
    assert head is not None
    return head


def rejects(data: bytes, error: type[RequestError] = MalformedRequest, says: str = ".") -> None:
    """Fail unless the head is rejected, in one piece and byte by byte, before anything else is read."""
    for pieces in ([data], [data[at : at + 1] for at in range(len(data))]):
        with pytest.raises(error, match=says) as caught:
            read(*pieces)
        assert type(caught.value) is error


# What a head says


def test_a_head_is_its_method_path_query_and_headers_in_order() -> None:
    head = accepted(post(b"X-One: 1", b"x-TWO:2", b"X-One:  3 "))
    assert (head.method, head.path, head.query) == (b"POST", b"/predict", b"")
    assert [(name, value.strip()) for name, value in head.headers] == [
        *((b"host", b"a"), (b"x-one", b"1"), (b"x-two", b"2"), (b"x-one", b"3")),
    ]
    assert head.fields[b"x-one"] == b"1"
    assert (head.body_length, head.keep_alive, head.is_1_0, head.expects_continue) == (0, True, False, False)


@given(st.lists(st.integers(1, len(GET) - 1), max_size=8))
def test_any_segmentation_gives_the_same_head(cuts: list[int]) -> None:
    places = [0, *sorted(set(cuts)), len(GET)]
    head = read(*(GET[start:end] for start, end in itertools.pairwise(places)))
    assert head is not None
    assert (head.method, head.path, head.query, head.headers) == (b"GET", b"/a", b"b=c", [(b"host", b"a")])


@pytest.mark.parametrize("cut", range(1, len(GET)))
def test_what_follows_a_head_is_left_wherever_the_head_is_cut(cut: int) -> None:
    reader = HeadReader(LIMIT)
    assert reader.read(GET[:cut]) is None
    assert reader.read(GET[cut:] + b"\0 not a head") == len(GET) - cut


def test_a_head_that_does_not_end_is_no_head() -> None:
    assert read(GET[:-1]) is None


@pytest.mark.parametrize("empty", [b"\r\n", b"\r\n\r\n\r\n"])
def test_empty_lines_before_a_request_line_are_skipped(empty: bytes) -> None:  # RFC 9112, section 2.2
    assert accepted(empty + GET).path == b"/a"
    head = read(*[bytes([byte]) for byte in empty + GET])
    assert head is not None
    assert head.path == b"/a"
    reader = HeadReader(LIMIT)
    assert reader.read(empty) is None
    assert not reader.has_begun


@pytest.mark.parametrize("begin", [b"\n", b"\r\r\n", b"\rG", b" ", b"\t", b"\0", b"\r\n\n", b"\r\n "])
def test_anything_but_empty_lines_before_a_request_line_is_rejected(begin: bytes) -> None:  # section 2.2
    rejects(begin + GET)


@pytest.mark.parametrize("limit", [len(GET), len(GET) + 1])
def test_a_head_of_as_many_bytes_as_the_limit_is_read(limit: int) -> None:
    for pieces in ([GET], [GET[:-1], GET[-1:]], [bytes([byte]) for byte in GET]):
        assert read(*pieces, limit=limit) is not None


def test_a_head_of_one_byte_more_than_the_limit_is_too_large() -> None:
    for pieces in ([GET], [GET[:-1], GET[-1:]], [bytes([byte]) for byte in GET]):
        with pytest.raises(HeadersTooLarge, match=f"{len(GET) - 1} bytes"):
            read(*pieces, limit=len(GET) - 1)


def test_a_head_without_an_end_is_too_large_at_the_limit() -> None:
    endless = b"GET / HTTP/1.1\r\nX: " + b"a" * LIMIT
    assert read(endless[: LIMIT - 1]) is None
    with pytest.raises(HeadersTooLarge):
        read(endless[: LIMIT - 1], b"a")


# The request line: RFC 9112, section 3


@pytest.mark.parametrize(
    "line",
    [
        *(b"", b"POST", b"POST /predict", b"POST HTTP/1.1", b" POST /predict HTTP/1.1", b"POST /predict HTTP/1.1 "),
        *(b"POST  /predict HTTP/1.1", b"POST /predict  HTTP/1.1", b"POST\t/predict HTTP/1.1", b"POST /a b HTTP/1.1"),
        *(b"POST /predict http/1.1", b"POST /predict HTTP/1.1x", b"POST /predict HTTP/1.10", b"POST / HTTP/01.1"),
        *(b"POST /predict HTTP/1,1", b"POST /predict HTTP1.1", b"POST /predict ICY/1.1", b"POST /predict HTTP/1.1\r"),
        *(b"post /predict HTTP/1.1", b"PO ST /predict HTTP/1.1", b"P\0ST /predict HTTP/1.1", b"BREW / HTTP/1.1"),
        *(b"POST /\0 HTTP/1.1", b"POST /\x7f HTTP/1.1", b"POST /\xff HTTP/1.1", b"POST /a\rb HTTP/1.1"),
    ],
)
def test_a_request_line_that_is_none_is_rejected(line: bytes) -> None:
    with pytest.raises((MalformedRequest, UnsupportedHttpVersion)):
        read(post(line=line))


@pytest.mark.parametrize("version", [b"0.9", b"1.2", b"1.9", b"2.0", b"2", b"3.0", b"9.9"])
def test_another_version_is_named_as_such(version: bytes) -> None:  # RFC 9110, section 15.6.6
    rejects(post(line=b"GET / HTTP/" + version), UnsupportedHttpVersion)


@pytest.mark.parametrize(
    ("target", "path", "query", "host"),
    [
        (b"/", b"/", b"", b"a"),
        (b"//a/b", b"//a/b", b"", b"a"),
        (b"/%2e%00?", b"/%2e%00", b"", b"a"),
        (b"/a?b?c", b"/a", b"b?c", b"a"),
        (b"/a#b?c", b"/a", b"", b"a"),
        (b"http://x/a?b", b"/a", b"b", b"x"),
        (b"HTTPS://x:1", b"/", b"", b"x:1"),
        (b"http://x?b", b"/", b"b", b"x"),
        (b"http://[::1]:80/a", b"/a", b"", b"[::1]:80"),
    ],
)
def test_a_target_is_a_path_or_an_address_whose_host_counts(
    target: bytes, path: bytes, query: bytes, host: bytes
) -> None:  # sections 3.2.1 and 3.2.2
    head = accepted(post(b"X: y", line=b"GET %b HTTP/1.1" % target))
    assert (head.path, head.query) == (path, query)
    assert sorted(head.headers) == sorted(head.fields.items()) == [(b"host", host), (b"x", b"y")]


@pytest.mark.parametrize(
    "target",
    [
        *(b"a", b"a:443", b"*", b"?a", b"http://", b"http:///a", b"http://?a", b"http://u@x/", b"http://x:/"),
        *(b"http:/a", b"http://x:a/", b"http://x\\y/", b"ftp://x/", b"://x/", b"http:x"),
    ],
)
def test_a_target_that_is_neither_is_rejected(target: bytes) -> None:  # section 3.2
    rejects(post(line=b"GET %b HTTP/1.1" % target))


def test_the_whole_server_is_a_target_of_options_alone() -> None:  # section 3.2.4
    assert accepted(post(line=b"OPTIONS * HTTP/1.1")).path == b"*"
    rejects(post(line=b"POST * HTTP/1.1"), says="target")


@pytest.mark.parametrize("target", [b"a:443", b"/", b"/predict", b"http://a/"])
def test_connect_is_rejected_whatever_its_target(target: bytes) -> None:  # section 3.2.3
    rejects(post(line=b"CONNECT %b HTTP/1.1" % target))


# Headers: RFC 9112, section 5, and RFC 9110, section 5


@pytest.mark.parametrize("name", _BAD_NAMES)
def test_a_header_name_that_is_no_token_is_rejected(name: bytes) -> None:  # RFC 9112, section 5.1
    for header in (name + b": y", name + b":"):
        rejects(post(header))
        rejects(post(host=header))


@pytest.mark.parametrize("byte", _BAD_BYTES)
def test_a_control_character_in_a_value_is_rejected(byte: int) -> None:  # RFC 9110, section 5.5
    for value in (b"a%cb", b"%cb", b"a%c"):
        rejects(post(b"X: " + value % byte))
        rejects(post(b"Transfer-Encoding: " + (b"chunked%c" if value[0] == 97 else b"%cchunked") % byte))


@pytest.mark.parametrize("value", [b"", b" ", b"a\tb", b"\x80\xff", b'"a, b";c', b":"])
def test_a_value_may_hold_anything_else(value: bytes) -> None:  # RFC 9110, section 5.5
    assert accepted(post(b"X:" + value)).fields[b"x"].strip() == value.strip()


@pytest.mark.parametrize("fold", [b"\r\n b", b"\r\n\tb", b"\r\n "])
def test_a_header_that_continues_on_a_second_line_is_rejected(fold: bytes) -> None:  # RFC 9112, section 5.2
    for header in (b"X: a", b"Content-Length: 5", b"Transfer-Encoding: chunked", b"Host: a"):
        rejects(post(header + fold) if header[:4] != b"Host" else post(host=header + fold))
    rejects(post(host=b" Host: a"))


@pytest.mark.parametrize("header", [b"colonless", b"X; y", b"X y: z", b"X=y"])
def test_a_header_without_a_colon_after_its_name_is_rejected(header: bytes) -> None:  # section 5
    rejects(post(header))


@pytest.mark.parametrize(
    "data",
    [
        *(GET.replace(b"\r\n", b"\n"), GET[:-2] + b"\n"),
        *(GET.replace(b"a\r\n", b"a\n"), GET.replace(b"1\r\n", b"1\n")),
    ],
)
def test_a_line_that_ends_without_a_carriage_return_is_rejected(data: bytes) -> None:  # section 2.2
    rejects(data)


@pytest.mark.parametrize(
    "data",
    [
        *(GET.replace(b"\r\n", b"\r"), GET.replace(b"a\r\n", b"a\r"), GET.replace(b"1\r\n", b"1\r")),
        *(GET.replace(b"\r\n", b"\r\r\n"), GET[:-2] + b"\rx\r\n\r\n", post(b"X: a\rY: b")),
    ],
)
def test_a_carriage_return_without_a_line_feed_is_rejected(data: bytes) -> None:  # section 2.2
    rejects(data)


# Hosts: RFC 9112, section 3.2


def test_a_request_needs_one_host_in_http_1_1_and_at_most_one_in_1_0() -> None:
    rejects(post(host=b""), says="no Host")
    assert accepted(post(line=b"GET / HTTP/1.0", host=b"")).is_1_0
    for line in (b"GET / HTTP/1.0", b"GET / HTTP/1.1", b"GET http://a/ HTTP/1.1"):
        for second in (b"Host: a", b"host:b", b"HOST:"):
            rejects(post(second, line=line), says="two Host")


@pytest.mark.parametrize(
    "host", [b"a b", b"a/b", b"u@a", b"a:port", b"a:123456", b"[::1", b"[g]", b"\xe4", b"a\\b", b"a\tb"]
)
def test_a_host_that_is_none_is_rejected(host: bytes) -> None:
    rejects(post(host=b"Host: " + host), says="Host")


# How long a body is: RFC 9112, section 6


@pytest.mark.parametrize(
    ("value", "length"), [(b"0", 0), (b"5", 5), (b" 5 ", 5), (b"\t5\t", 5), (b"05", 5), (b"0" * 19 + b"5", 5)]
)
def test_a_content_length_is_a_decimal_number(value: bytes, length: int) -> None:  # RFC 9110, section 8.6
    assert accepted(post(b"Content-Length:" + value)).body_length == length


@pytest.mark.parametrize(
    "value",
    [
        *(b"", b"+5", b"-5", b"-0", b"0x5", b"5 5", b"5,5", b"5, 5", b"5;", b"5.0", b"5e0", b"1_0", b"five", b"\xb2"),
        *(b"5\0", b"\x0b5", b"5\x0c", b"0" * 20 + b"5", b"18446744073709551616", b"9" * 30),
    ],
)
def test_a_content_length_that_is_none_is_rejected(value: bytes) -> None:  # RFC 9112, section 6.3, rule 5
    rejects(post(b"Content-Length: " + value))


@pytest.mark.parametrize("second", [b"5", b"6", b"05", b""])
def test_two_content_lengths_are_rejected_though_they_agree(second: bytes) -> None:  # RFC 9112, section 6.3, rule 5
    rejects(post(b"Content-Length: 5", b"content-length: " + second))


@pytest.mark.parametrize("value", [b"chunked", b"Chunked", b"CHUNKED", b" chunked", b"chunked ", b"\tchunked"])
def test_a_chunked_body_has_no_length(value: bytes) -> None:  # RFC 9112, section 7; spaces: RFC 9110, section 5.5
    assert accepted(post(b"Transfer-Encoding:" + value)).body_length is None


@pytest.mark.parametrize(
    "value",
    [
        *(b"xchunked", b"chunkedx", b"chunke", b"chun ked", b"x chunked", b"chunked x", b"chunked;q=1", b'"chunked"'),
        *(b"chunked, identity", b"chunked, chunked", b"chunked,", b",chunked", b"identity", b"gzip", b"", b"chunked\t"),
        *(
            b"\x0bchunked",
            b"chunked\x0c",
            b"chunked\0",
            b"\xa0chunked",
            b"chunk\xebd",
            b"gzip;chunked",
            b"gzip, chunked",
        ),
    ],
)
def test_a_transfer_coding_that_is_not_chunked_alone_is_rejected(value: bytes) -> None:  # RFC 9112, section 6.1
    for headers in ([b"Transfer-Encoding: " + value], [b"Content-Length: 5", b"Transfer-Encoding: " + value]):
        with pytest.raises((MalformedRequest, UnsupportedTransferCoding)):
            read(post(*headers))


@pytest.mark.parametrize("coding", [b"gzip, chunked", b"deflate, chunked", b"identity, chunked"])
def test_a_transfer_coding_that_nobody_decodes_here_is_named(coding: bytes) -> None:  # RFC 9112, section 6.1
    rejects(post(b"Transfer-Encoding: " + coding), UnsupportedTransferCoding, coding.decode())


@pytest.mark.parametrize(
    "headers",
    [
        (b"Transfer-Encoding: chunked", b"Content-Length: 5"),
        (b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        (b"Content-Length: 0", b"transfer-encoding:chunked"),
        (b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
        (b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"),
        (b"Transfer-Encoding: identity", b"Transfer-Encoding: chunked"),
        (b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked"),
        (b"Transfer-Encoding: ", b"Transfer-Encoding: chunked"),
        (b"Transfer-Encoding : chunked",),
        (b"Transfer-Encoding\t: chunked",),
        (b" Transfer-Encoding: chunked",),
        (b"Transfer-Encoding:\r\n chunked",),
        (b"Content-Length : 5",),
        (b"Content-Length: 5", b"Transfer-Encoding\x0b: chunked"),
        (b"X: a\rTransfer-Encoding: chunked",),
        (b"X: a\nTransfer-Encoding: chunked",),
        (b"X: a\nContent-Length: 5",),
    ],
)
def test_two_ways_to_see_the_length_are_rejected(headers: tuple[bytes, ...]) -> None:  # RFC 9112, section 11.2
    rejects(post(*headers))


@pytest.mark.parametrize("name", [b"Content_Length", b"Transfer_Encoding", b"X-Content-Length", b"Content-Length2"])
def test_a_name_that_is_only_similar_says_nothing_of_the_length(name: bytes) -> None:
    assert accepted(post(name + b": chunked")).body_length == 0


def test_http_1_0_has_no_transfer_encoding() -> None:  # RFC 9112, section 6.1
    rejects(post(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.0"))


def test_an_upgrade_leaves_the_length_as_it_is() -> None:  # RFC 9110, section 7.8
    upgrade = b"Connection: Upgrade", b"Upgrade: h2c"
    assert accepted(post(*upgrade, b"Content-Length: 5")).body_length == 5
    assert accepted(post(*upgrade, b"Transfer-Encoding: chunked")).body_length is None


# Connection and Expect


@pytest.mark.parametrize(
    ("headers", "keep_alive"),
    [
        ((b"Connection: close",), False),
        ((b"Connection: Close",), False),
        ((b"Connection: te, close",), False),
        ((b"Connection: te ,\tCLOSE ,",), False),
        ((b"Connection: te", b"X: y", b"connection: close"), False),
        ((b"Connection: closed",), True),
        ((b"Connection: keep-alive",), True),
        ((b"Proxy-Connection: close",), True),
    ],
)
def test_close_is_an_option_of_connection(headers: tuple[bytes, ...], *, keep_alive: bool) -> None:
    assert accepted(post(*headers)).keep_alive is keep_alive  # RFC 9112, section 9.6
    assert not accepted(post(*headers, line=b"GET / HTTP/1.0")).keep_alive  # section 9.3


@pytest.mark.parametrize(
    ("headers", "expects"),
    [
        ((b"Expect: 100-continue",), True),
        ((b"Expect: 100-Continue ",), True),
        ((b"Expect: a", b"Expect: 100-continue"), True),
        ((b"Expect: 200-ok",), False),
    ],
)
def test_only_http_1_1_can_wait_for_continue(headers: tuple[bytes, ...], *, expects: bool) -> None:
    assert accepted(post(*headers)).expects_continue is expects  # RFC 9110, section 10.1.1
    assert not accepted(post(*headers, line=b"POST / HTTP/1.0")).expects_continue


@given(st.binary(max_size=80), st.sampled_from([b"", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nX:"]))
def test_any_bytes_are_read_or_rejected_with_a_sentence(data: bytes, begin: bytes) -> None:
    reader, reason = HeadReader(LIMIT), None
    try:
        if reader.read(begin + data + b"\r\n\r\n") is not None:
            reader.head()
    except RequestError as exc:
        reason = str(exc)
    assert reason is None or re.fullmatch(r"[A-Z].*\.", reason)
