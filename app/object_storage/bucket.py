"""A prefix of a bucket: list, read, write and delete objects, through obstore, for S3, Google Cloud Storage and Azure.

Its errors are sentences of our own. The client's texts may hold addresses with signatures in them, so only a status, a
code and known causes are taken from them.
"""

import configparser
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.contract.location import BucketAddress
from app.errors import ObjectStoreRefused, ObjectStoreUnreachable
from app.system.invocation import installs

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_CHUNK_BYTES = 1 << 20
_OPTIONS = {
    "allow_http": True,  # if the endpoint says http://
    "connect_timeout": timedelta(seconds=3),
    "read_timeout": timedelta(seconds=20),
    "timeout": timedelta(hours=1),
}
_RETRIES = {"max_retries": 2, "retry_timeout": timedelta(seconds=10)}
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z0-9]{1,64})</Code>")
_CAUSES = {
    "dns error": "its name cannot be resolved",
    "ConnectionRefused": "it refuses connections",
    "certificate": "its certificate is not trusted",
    "169.254.169.254": "no credentials were found",
    "timed out": "it does not answer in time",
}


@dataclass(frozen=True)
class Entry:
    """One object of a listing. `tag` changes with the object's content."""

    size: int
    tag: str


class Bucket:
    """The objects under an address, by their path below it.

    Its methods raise ObjectStoreUnreachable or ObjectStoreRefused.
    """

    def __init__(self, address: BucketAddress) -> None:
        self.address = address
        self._opened: tuple[dict[str, str], ObjectStore] | None = None

    def entries(self) -> dict[str, Entry]:
        """Return all objects, by path."""
        client = self._client()
        import obstore

        with self._plain_errors("listed"):
            pages = obstore.list(client, chunk_size=1000)
            return {each["path"]: Entry(each["size"], each["e_tag"] or "") for page in pages for each in page}

    def read(self, path: str) -> bytes | None:
        """Return an object's content; None if it does not exist."""
        client = self._client()
        import obstore

        with self._plain_errors("read"):
            try:
                return bytes(obstore.get(client, path).bytes())
            except FileNotFoundError:
                return None

    def download(self, path: str, file: Path) -> str:
        """Write an object to a new file, and return its sha256. Raises FileNotFoundError, or OSError for the file."""
        client = self._client()
        import obstore

        digest = hashlib.sha256()
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("xb") as stream:
            with self._plain_errors("read"):
                chunks = iter(obstore.get(client, path).stream(_CHUNK_BYTES))
            while True:
                with self._plain_errors("read"):
                    chunk = next(chunks, None)
                if chunk is None:
                    break
                digest.update(chunk)
                stream.write(chunk)
        return digest.hexdigest()

    def upload(self, path: str, content: Path | bytes) -> None:
        """Write an object, replacing an existing one. Readers see the old content or the new."""
        client = self._client()
        import obstore

        with self._plain_errors("written"):
            obstore.put(client, path, content, mode="overwrite")

    def create(self, path: str, content: bytes) -> bytes:
        """Write an object unless it exists, and return its content: the given one, or the existing one."""
        client = self._client()
        import obstore
        from obstore.exceptions import AlreadyExistsError

        with self._plain_errors("written"):
            try:
                obstore.put(client, path, content, mode="create", use_multipart=False)
            except AlreadyExistsError:  # by another, or by a first attempt whose answer was lost
                found = self.read(path)
                return b"" if found is None else found
        return content

    def delete(self, *paths: str) -> None:
        """Delete objects. One that does not exist is no error."""
        client = self._client()
        import obstore

        with self._plain_errors("written"):
            obstore.delete(client, list(paths))

    def _client(self) -> "ObjectStore":
        """Return the client; a new one if the file of credentials has changed."""
        try:
            from obstore.store import from_url
        except ModuleNotFoundError:
            raise ObjectStoreRefused(
                f"{self.address.url} needs a package that is not installed: {installs('object-storage')}."
            ) from None

        credentials = _shared_credentials() if self.address.url.startswith("s3:") else {}
        if self._opened is None or self._opened[0] != credentials:
            open_store: Any = partial(from_url, client_options=_OPTIONS, retry_config=_RETRIES)
            with self._plain_errors("opened"):
                self._opened = credentials, open_store(self.address.url, **credentials)
        return self._opened[1]

    @contextmanager
    def _plain_errors(self, what: str) -> Iterator[None]:
        """Translate obstore's error into one of ours, without its text."""
        from obstore.exceptions import BaseError

        try:
            yield
        except FileNotFoundError:
            raise
        except (BaseError, OSError, ValueError) as exc:
            if isinstance(exc, OSError) and exc.errno is not None:
                raise  # of a local file
            raise self._error(what, str(exc)) from None

    def _error(self, what: str, text: str) -> ObjectStoreUnreachable | ObjectStoreRefused:
        url = self.address.url
        status, code = _STATUS.search(text), _CODE.search(text)
        answer = " ".join(found[1] for found in (status, code) if found)
        if status is not None and status[1] in ("400", "401", "403", "404"):
            return ObjectStoreRefused(
                f"{url} cannot be {what}: the object store answers {answer}. Check the address, the credentials in the "
                "environment or their file, and what they permit."
            )
        if what == "opened":
            return ObjectStoreRefused(
                f"{url} cannot be opened: environment variables are missing or wrong. "
                "docs/how-to/object-storage.md lists them."
            )
        cause = next((words for sign, words in _CAUSES.items() if sign in text), "it does not answer")
        return ObjectStoreUnreachable(f"{url} cannot be {what}: {f'it answers {answer}' if answer else cause}.")


def _shared_credentials() -> dict[str, str]:
    """Return the keys in the file that AWS_SHARED_CREDENTIALS_FILE names, which obstore does not read by itself.

    Variables with keys go before it. Raises ObjectStoreRefused.
    """
    file = os.environ.get("AWS_SHARED_CREDENTIALS_FILE")
    if not file or os.environ.get("AWS_ACCESS_KEY_ID"):
        return {}
    profile = os.environ.get("AWS_PROFILE", "default")
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(Path(file).read_text(encoding="utf-8"))
        found = parser[profile]
        keys = {"access_key_id": found["aws_access_key_id"], "secret_access_key": found["aws_secret_access_key"]}
        return {**keys, "token": found["aws_session_token"]} if "aws_session_token" in found else keys
    except (OSError, UnicodeDecodeError, configparser.Error, KeyError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else f"it has no keys for the profile {profile}"
        raise ObjectStoreRefused(f"AWS_SHARED_CREDENTIALS_FILE {file} cannot be used: {reason}.") from None
