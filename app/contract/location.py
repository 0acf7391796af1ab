"""The place of a model store, as settings and commands name it: a folder, or a bucket of an object store."""

import re
from dataclasses import dataclass
from pathlib import Path

from app.errors import InvalidSetting
from app.system.home import expanded
from app.system.invocation import command_line

_BUCKET = re.compile(
    r"(?P<bucket>(s3|gs|az)://[A-Za-z0-9][A-Za-z0-9._-]+)(?P<prefix>(/[A-Za-z0-9._=-]+)*)/?(@sha256:(?P<digest>[0-9a-f]{64}))?"
)
_FORMS = "s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX"


@dataclass(frozen=True)
class BucketAddress:
    """A prefix of a bucket. With `digest`, only the version whose manifest has that sha256 is served."""

    url: str
    digest: str | None = None

    def __str__(self) -> str:
        return self.url if self.digest is None else f"{self.url}@sha256:{self.digest}"


Location = Path | BucketAddress


def parse_location(value: str | Path | BucketAddress) -> Location:
    """Return the folder or bucket that a text names; anything with :// in it is a bucket. Raises InvalidSetting."""
    if not isinstance(value, str):
        return expanded(value) if isinstance(value, Path) else value
    if "://" not in value:
        return Path(expanded(value))
    found = _BUCKET.fullmatch(value)
    if found is None or ".." in value.split("/"):
        raise InvalidSetting(
            f"'{_without_secrets(value)}' is not an address of a model store. Give {_FORMS}; the prefix may have "
            "letters, digits, dots, dashes and underscores. To serve only one version, append @sha256: and the 64 "
            "hexadecimal digits of its manifest's digest."
        )
    return BucketAddress(found["bucket"] + found["prefix"], found["digest"])


def needs_a_folder(location: Location) -> Path:
    """Return the folder that is named. Raises InvalidSetting if it is a bucket."""
    if isinstance(location, Path):
        return location
    raise InvalidSetting(
        f"This needs a folder, and {location.url} is a bucket. Copy the version into a folder first, by "
        f"{command_line('app', 'models', 'pull', 'NAME', '--from', location.url)}, and name that with --model-store."
    )


def _without_secrets(address: str) -> str:
    """Remove secrets from an address: a user with a password, and a query with a signature."""
    return re.sub(r"//[^/]*@", "//…@", address.partition("?")[0], count=1)
