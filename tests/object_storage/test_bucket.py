"""Objects of a real S3 server: conditional writes, credentials that rotate, and errors without secrets."""

import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.contract.location import BucketAddress
from app.errors import ObjectStoreError, ObjectStoreRefused, ObjectStoreUnreachable
from app.object_storage.bucket import Bucket
from tests.s3_server import KEYS, S3Server

SECRETS = {*KEYS, *KEYS.values(), "wrong-secret-word", "key-that-nobody-has"}


@pytest.fixture
def objects(bucket: BucketAddress) -> Bucket:
    return Bucket(bucket)


def test_what_is_written_is_listed_read_and_deleted(objects: Bucket, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"from a file")
    objects.upload("a/1", b"one")
    objects.upload("a/2", tmp_path / "file")
    assert {path: entry.size for path, entry in objects.entries().items()} == {"a/1": 3, "a/2": 11}
    assert objects.read("a/2") == b"from a file"
    assert objects.read("a/3") is None
    objects.delete("a/1", "a/3")
    assert set(objects.entries()) == {"a/2"}


def test_the_tag_of_an_object_changes_with_its_content_alone(objects: Bucket) -> None:
    objects.upload("a", b"one")
    before = objects.entries()["a"].tag
    assert objects.entries()["a"].tag == before
    objects.upload("a", b"two")
    assert objects.entries()["a"].tag != before


def test_a_large_file_goes_up_in_parts_and_comes_back_whole(objects: Bucket, tmp_path: Path) -> None:
    content = bytes(range(256)) * 50_000
    (tmp_path / "large").write_bytes(content)
    objects.upload("large", tmp_path / "large")
    objects.download("large", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content


def test_of_many_who_create_an_object_one_does_and_the_others_get_what_is_there(objects: Bucket) -> None:
    contents = [f"by {number}".encode() for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        found = set(threads.map(lambda content: objects.create("claim", content), contents))
    assert len(found) == 1
    assert found == {objects.read("claim")}
    assert found <= set(contents)


@pytest.mark.parametrize(
    ("change", "kind", "sentence"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong-secret-word"}, ObjectStoreRefused, "403 SignatureDoesNotMatch. Check"),
        ({"AWS_ACCESS_KEY_ID": "key-that-nobody-has"}, ObjectStoreRefused, "403 InvalidAccessKeyId. Check"),
        ({"AWS_ENDPOINT_URL": "closed"}, ObjectStoreUnreachable, "it refuses connections"),
        ({"AWS_ENDPOINT_URL": "http://no-such-host.invalid"}, ObjectStoreUnreachable, "its name cannot be resolved"),
    ],
)
def test_an_error_is_a_sentence_without_secrets(
    bucket: BucketAddress,
    change: dict[str, str],
    kind: type[ObjectStoreError],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        for name, value in change.items():
            monkeypatch.setenv(name, value.replace("closed", f"http://127.0.0.1:{closed.getsockname()[1]}"))
        for ask in (Bucket(bucket).entries, lambda: Bucket(bucket).upload("a", b"b"), lambda: Bucket(bucket).read("a")):
            with pytest.raises(kind, match=sentence) as caught:
                ask()
            assert str(caught.value).startswith(bucket.url)
            assert caught.value.__cause__ is None  # a traceback would show the client's own text
            assert caught.value.__suppress_context__
            assert not [secret for secret in SECRETS if secret in str(caught.value)]


def test_a_bucket_that_does_not_exist_is_told() -> None:
    with pytest.raises(ObjectStoreRefused, match=r"s3://no-such-bucket cannot be listed: .* 404 NoSuchBucket"):
        Bucket(BucketAddress("s3://no-such-bucket")).entries()


def write_credentials(file: Path, key: str, secret: str, *, profile: str = "default") -> None:
    file.write_text(f"[{profile}]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")


def test_a_file_of_credentials_is_read_again_when_it_has_changed(
    objects: Bucket, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects.upload("a", b"one")
    file = tmp_path / "credentials"
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    for key, secret in KEYS.items():
        write_credentials(file, key, secret)
        assert objects.read("a") == b"one"
    write_credentials(file, "first-key", "wrong-secret-word")
    with pytest.raises(ObjectStoreRefused, match="403"):
        objects.read("a")
    write_credentials(file, *next(iter(KEYS.items())))
    assert objects.read("a") == b"one"


def test_credentials_of_a_profile_are_taken(objects: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "serving")
    write_credentials(tmp_path / "credentials", *next(iter(KEYS.items())), profile="serving")
    assert objects.read("a") is None
    monkeypatch.setenv("AWS_PROFILE", "other")
    with pytest.raises(ObjectStoreRefused, match="has no keys for the profile other"):
        objects.read("a")


def test_a_damaged_file_of_credentials_is_told_without_what_is_in_it(
    objects: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    (tmp_path / "credentials").write_text("wrong-secret-word\n[default]\n")
    with pytest.raises(ObjectStoreRefused, match="has no keys") as caught:
        objects.entries()
    assert "wrong-secret-word" not in str(caught.value)
    (tmp_path / "credentials").unlink()
    with pytest.raises(ObjectStoreRefused, match="No such file"):
        objects.entries()


@pytest.mark.parametrize("url", ["gs://models/a", "az://models/a"])
def test_other_stores_are_wired_to_their_clients(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not asked: no server for them is here."""
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    client = type(Bucket(BucketAddress(url))._client()).__name__
    assert client == {"gs": "GCSStore", "az": "AzureStore"}[url[:2]]


def test_an_account_that_is_not_named_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(ObjectStoreRefused, match="environment variables are missing or wrong"):
        Bucket(BucketAddress("az://models/a")).entries()


def test_a_package_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("obstore", "obstore.store"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        ObjectStoreRefused, match=r"not installed: run `make setup`, or `pip install '.\[object-storage\]'`"
    ):
        Bucket(BucketAddress("s3://models")).read("a")
