"""Write an answer's Server-Timing header (W3C Server Timing), which browsers and tracers show.

All values are in milliseconds: `read` until the request had arrived, `decode` for decoding its pictures, `queue` for
waiting for its batch, `infer` for the batch. For many pictures, `decode` is the sum, and `queue` and `infer`
are the longest.
"""

from collections.abc import Iterable

from app.serving.batcher import Reply

SERVER_TIMING_HEADER = "Server-Timing"
_VALUE = b"read;dur=%.3f, decode;dur=%.3f, queue;dur=%.3f, infer;dur=%.3f"  # bytes: formatted in half the time


def of_one(reply: Reply, read_s: float) -> bytes:
    """Return the header's value for the picture of one reply."""
    return _VALUE % (read_s * 1000, reply.prepared_s * 1000, reply.queued_s * 1000, reply.ran_s * 1000)


def of_many(replies: Iterable[Reply], read_s: float) -> bytes:
    """Return the header's value for several pictures; failed ones count for the stages that they reached."""
    decode_s = queue_s = infer_s = 0.0
    for reply in replies:
        decode_s += reply.prepared_s
        queue_s = max(queue_s, reply.queued_s)
        infer_s = max(infer_s, reply.ran_s)
    return _VALUE % (read_s * 1000, decode_s * 1000, queue_s * 1000, infer_s * 1000)
