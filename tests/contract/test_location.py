"""Where a model store is, as settings and commands name it."""

from pathlib import Path

import pytest

from app.contract.location import BucketAddress, needs_a_folder, parse_location
from app.errors import InvalidSetting
from app.settings import Settings

DIGEST = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "location"),
    [
        ("model_store", Path("model_store")),
        ("/srv/models", Path("/srv/models")),
        ("s3://models", BucketAddress("s3://models")),
        ("s3://models/", BucketAddress("s3://models")),
        ("s3://my.models/a/b-c", BucketAddress("s3://my.models/a/b-c")),
        ("gs://models/a", BucketAddress("gs://models/a")),
        ("az://container/a", BucketAddress("az://container/a")),
        (f"s3://models/a@sha256:{DIGEST}", BucketAddress("s3://models/a", DIGEST)),
    ],
)
def test_a_folder_and_a_bucket_are_told_apart(text: str, location: Path | BucketAddress) -> None:
    assert parse_location(text) == location


def test_a_folder_in_the_users_home_is_found() -> None:
    assert parse_location("~/models") == Path.home() / "models"


@pytest.mark.parametrize(
    "text",
    [
        "s3://",
        "s3:///prefix",
        "ftp://models/a",
        "S3://models/a",
        "s3://models/a b",
        "s3://models/../secret",
        "s3://models//a",
        "s3://models/a@sha256:123",
        f"s3://models/a@sha256:{DIGEST.upper()}",
        "https://models.s3.amazonaws.com/a",
    ],
)
def test_what_is_no_address_is_told_with_the_forms_that_are(text: str) -> None:
    with pytest.raises(InvalidSetting, match=r"is not an address .* Give s3://BUCKET/PREFIX, gs://"):
        parse_location(text)


@pytest.mark.parametrize("text", ["s3://key:top-secret@models/a", "https://host/a?sig=top-secret&se=1"])
def test_no_secret_of_a_wrong_address_is_repeated(text: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        parse_location(text)
    assert "top-secret" not in str(caught.value)


def test_the_setting_takes_both_and_tells_a_wrong_one_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGECLASS_MODEL_STORE", f"s3://models/a@sha256:{DIGEST}")
    assert str(Settings.load().model_store) == f"s3://models/a@sha256:{DIGEST}"
    monkeypatch.setenv("IMAGECLASS_MODEL_STORE", "s4://models/a")
    with pytest.raises(InvalidSetting, match=r"'s4://models/a' is not an address of a model store"):
        Settings.load()


def test_what_needs_a_folder_says_how_to_have_one() -> None:
    assert needs_a_folder(Path("a")) == Path("a")
    with pytest.raises(InvalidSetting, match=r"models pull NAME --from s3://models"):
        needs_a_folder(BucketAddress("s3://models"))
