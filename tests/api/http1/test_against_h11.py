"""What h11 calls an error is never accepted here, and what both accept is the same request.

h11 is the strictest reader of requests that Python has and shares no code with llhttp. `--examples 1000000` reads that
many streams; without it, 5,000.

Deliberate differences, beside which the two must agree:

- Here, empty lines before a request line are skipped, as RFC 9112, section 2.2 advises; h11 rejects them.
- Only here rejected, though h11 accepts them: methods that llhttp does not know, other versions than 1.0 and 1.1, lines
  that end with a bare line feed, headers that continue on a second line (section 5.2), Content-Length beside
  Transfer-Encoding (section 6.1) or twice, Transfer-Encoding in HTTP/1.0, control characters in values, hosts and
  targets that are none, CONNECT, spaces after a chunk's size, chunk sizes of more than 15 digits, and trailers that say
  how long a body is.
"""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.api.http1.generated import generators, pieces_of, stream
from tests.api.http1.readings import Reading, read, read_by_h11


def check(data: bytes) -> Reading:
    """Fail unless every request that is accepted here is the one that h11 reads."""
    ours, theirs = read([data]), read_by_h11(data)
    for number, message in enumerate(ours.messages):
        assert number < len(theirs.messages), (data, message, theirs.reason or theirs.rest)
        assert message == theirs.messages[number], data
    return ours


def test_what_h11_rejects_is_never_accepted_and_what_both_accept_is_the_same(examples: int) -> None:
    accepted = rejected = 0
    for rng in generators(examples):
        ours = check(stream(rng))
        accepted += len(ours.messages)
        rejected += ours.rest == "error"
    assert accepted > examples / 2  # or the streams would show nothing
    assert rejected > examples / 10


@given(st.randoms(use_true_random=False))
@settings(max_examples=150)
def test_a_stream_that_shows_a_difference_is_shortened(rng: random.Random) -> None:
    check(stream(rng))


def test_any_segmentation_gives_the_same_requests_and_the_same_end(examples: int) -> None:
    for rng in generators(examples // 2):
        data = stream(rng)
        whole, cut = read([data]), read(pieces_of(data, rng))
        assert cut.messages == whole.messages, data
        assert cut.rest == whole.rest, (data, whole.reason, cut.reason)
