"""A request that is 400 and the end when the service is calm is that under overload, too."""

import re

import pytest

from app.api.http1.head import HeadReader
from app.api.http1.shedding import is_whole_plain_request
from tests.api.http1.generated import generators, pieces_of, plain, stream
from tests.api.http1.in_memory import answered
from tests.api.http1.readings import read, read_by_h11

CHUNKED = b"POST /predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_what_is_rejected_and_the_end_when_calm_is_so_under_overload(examples: int) -> None:
    count = examples // 4
    rejected = shed = 0
    for rng in generators(count):
        data = stream(rng)
        pieces = rng.choice(([data], pieces_of(data, rng)))
        calm, busy = answered(pieces, overloaded=False), answered(pieces, overloaded=True)
        assert len(calm) == len(busy), data
        for one, other in zip(calm, busy, strict=True):
            if other.outcome == (503, False):  # of a body that does not arrive, calm says so later
                assert one.outcome in {(200, False), (408, True)}, data
                shed += 1
            else:
                assert other.outcome == one.outcome, data
                rejected += one.status >= 400
    assert rejected > count / 5
    assert shed > count / 5


@pytest.mark.parametrize(
    "chunks", [b"5 \r\nhello", b"5\r\nhello!\r\n0\r\n\r\n", b"0\r\nno colon\r\n\r\n", b"-1\r\n", b"5\nhello"]
)
@pytest.mark.parametrize("before", [b"", b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"])
def test_a_broken_chunked_body_is_400_and_the_end_when_busy(chunks: bytes, before: bytes) -> None:
    for overloaded in (False, True):
        *first, last = answered([before + CHUNKED + chunks], overloaded=overloaded)
        assert [answer.status for answer in first] == [503 if overloaded else 200] * bool(before)
        assert last.outcome == (400, True)


def test_what_is_rejected_unread_is_one_whole_plain_request(examples: int) -> None:
    found = 0
    for rng in generators(4 * examples):
        data = plain(rng)
        if is_whole_plain_request(data):
            found += 1
            assert_plain(data)
    assert found > examples / 4


def assert_plain(data: bytes) -> None:
    reader = HeadReader(2048)
    assert reader.read(data) is not None, data
    head = reader.head()
    size = re.search(rb"\r\n\r\n", data)
    assert size is not None
    assert (head.method, head.path, head.body_length) == (b"POST", b"/predict", len(data) - size.end()), data
    assert (head.keep_alive, head.expects_continue, head.is_1_0) == (True, False, False), data
    assert not {b"origin", b"x-request-id", b"transfer-encoding"} & head.fields.keys(), data
    assert len(read([data]).messages) == len(read_by_h11(data).messages) == 1, data


@pytest.mark.parametrize("line", [b"post /predict HTTP/1.1", b"POST /PREDICT HTTP/1.1", b"POST /predict http/1.1"])
def test_a_request_line_in_another_case_is_another_request(line: bytes) -> None:  # RFC 9110, sections 9.1 and 4.2.3
    data = line + b"\r\nhost: a\r\nCONTENT-LENGTH: 1\r\n\r\nx"
    assert not is_whole_plain_request(data)
    assert is_whole_plain_request(data.replace(line, b"POST /predict HTTP/1.1"))
    (calm,), (busy,) = (answered([data], overloaded=overloaded) for overloaded in (False, True))
    assert busy.outcome == calm.outcome
