"""Check API keys. Only digests of the keys are kept in memory."""

import hmac
import time
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path

import structlog

from app.errors import InvalidSetting, Unauthorized

RawHeaders = Sequence[tuple[bytes, bytes]]
"""Header names in lower case, as ASGI and uvicorn have them."""

_LOOK_EVERY_S = 1.0
_log = structlog.stdlib.get_logger(__name__)


class ApiKeys:
    """Keys from a setting, from a file, or from both. The file is reread when it changes.

    Raises InvalidSetting if there is no key, or one that no header can carry.
    """

    def __init__(self, given: str | None = None, file: Path | None = None) -> None:
        self._fixed = [] if given is None else _digests("IMAGECLASS_API_KEYS", given.split(","))
        self._file = file
        self._seen = None if file is None else _fingerprint(file)
        self._digests = self._fixed + ([] if file is None else _read(file))
        self._next_look = time.monotonic() + _LOOK_EVERY_S

    def check(self, headers: RawHeaders) -> None:
        """Raise Unauthorized unless the request carries a key, as `Authorization: Bearer KEY` or `X-API-Key: KEY`."""
        if self._file is not None and (now := time.monotonic()) >= self._next_look:
            self._next_look = now + _LOOK_EVERY_S
            self._look(self._file)
        carried = False
        for key in _carried(headers):
            carried = True
            digest = sha256(key).digest()
            # Compare every known key in constant time, so that the duration reveals nothing.
            if any([hmac.compare_digest(digest, known) for known in self._digests]):  # noqa: C419 - all of them
                return
        if carried:
            raise Unauthorized("This API key is not valid here. Send a valid one.")
        raise Unauthorized(
            "This service requires an API key. Send it in a header: 'Authorization: Bearer KEY' or 'X-API-Key: KEY'."
        )

    def _look(self, file: Path) -> None:
        """Reload the keys if the file has changed; keep the old ones if it is invalid."""
        seen = _fingerprint(file)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._digests = self._fixed + _read(file)
        except InvalidSetting as exc:
            _log.error("API keys not read, the previous ones stay valid", reason=str(exc))
        else:
            _log.info("API keys read", keys=len(self._digests))


def _carried(headers: RawHeaders) -> Iterator[bytes]:
    for name, value in headers:
        if name == b"x-api-key":
            yield value.strip()
        elif name == b"authorization":
            scheme, _, key = value.partition(b" ")
            if scheme.lower() == b"bearer":
                yield key.strip()


def _read(file: Path) -> list[bytes]:
    """Return the digests of a file's keys, one a line. Empty lines and lines that begin with # are ignored."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is no text"
        raise InvalidSetting(f"IMAGECLASS_API_KEYS_FILE, {file}, cannot be read: {reason}.") from exc
    return _digests("IMAGECLASS_API_KEYS_FILE", [line for line in lines if not line.startswith("#")])


def _digests(setting: str, keys: Iterable[str]) -> list[bytes]:
    found = []
    for key in (key.strip() for key in keys):
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise InvalidSetting(f"{setting} holds a key with a space or a character that is not ASCII.")
        if key:
            found.append(sha256(key.encode()).digest())
    if not found:
        raise InvalidSetting(f"{setting} holds no key. Add one, or unset it to serve everyone.")
    return found


def _fingerprint(file: Path) -> tuple[int, ...] | None:
    """Return a value that changes with the file, also if a link is repointed, which is how Kubernetes updates files."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
