"""Decide whether and when a call is tried again: exponential backoff with full jitter, or the wait of `Retry-After`.

Without jitter, clients that fail together would retry together (Marc Brooker, "Exponential Backoff And Jitter", AWS
Architecture Blog, 2015). Every call of this client can be repeated: none changes anything.
"""

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Self

import httpx

_TRY_AGAIN = (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE)
_SPREAD = 0.25
"""A wait that the service names is lengthened by up to this share at random, because all clients get the same one."""


class Attempt:
    """One try of a call, to be made after `wait_s`: a context manager that records a failed connection as the
    outcome."""

    outcome: httpx.Response | httpx.RequestError

    def __init__(self, wait_s: float) -> None:
        self.wait_s = wait_s

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if isinstance(error, httpx.RequestError):
            self.outcome = error
            return True
        return False


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a call is tried again after 429, 503 or a failed connection, and how long to wait before each retry.

    The wait before the nth retry is random, below `base_s` times 2 to the power of n - 1, and below `longest_s`. A wait
    that the service names is kept, unless it is above `longest_retry_after_s`: then there is no retry.
    """

    retries: int = 4
    base_s: float = 0.2
    longest_s: float = 10.0
    longest_retry_after_s: float = 60.0

    def attempts(self) -> Iterator[Attempt]:
        """Yield the attempts of a call, until the outcome of one is final."""
        wait_s: float | None = 0.0
        retries = 0
        while wait_s is not None:
            attempt = Attempt(wait_s)
            yield attempt
            retries += 1
            wait_s = self.wait_s(retries, attempt.outcome)

    def wait_s(self, retry: int, outcome: httpx.Response | httpx.RequestError) -> float | None:
        """Return the seconds to wait before retry number `retry`, from 1, or None if the outcome is final."""
        if retry > self.retries or not _may_pass(outcome):
            return None
        backoff = random.uniform(0, min(self.longest_s, self.base_s * 2 ** (retry - 1)))  # noqa: S311 - no secret
        asked = _retry_after_s(outcome.headers) if isinstance(outcome, httpx.Response) else None
        if asked is None:
            return backoff
        if asked > self.longest_retry_after_s:
            return None
        return asked + max(backoff, random.uniform(0, _SPREAD * asked))  # noqa: S311


def _may_pass(outcome: httpx.Response | httpx.RequestError) -> bool:
    """Say whether the same call may succeed soon. A call that timed out would take as long again."""
    if isinstance(outcome, httpx.Response):
        return outcome.status_code in _TRY_AGAIN
    return isinstance(outcome, httpx.NetworkError | httpx.RemoteProtocolError | httpx.ConnectTimeout)


def _retry_after_s(headers: httpx.Headers) -> float | None:
    """Return the seconds that Retry-After names, as a number or as a date (RFC 9110, section 10.2.3)."""
    value = headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
