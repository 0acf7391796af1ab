"""Check, build and try a release: `make release`, on the commit that is tagged with it.

It pushes and uploads nothing. It needs the standard library and hatchling alone, so that it runs in an environment that
holds no more than what builds.
"""

import json
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
import urllib.error
import urllib.request
import venv
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

PACKAGES = ("app", "imageclass", "training")
PICTURE = "tests/data/7-00000.png"
_STARTS_WITHIN_S = 120


class NotReleasable(Exception):
    """What has to be mended before this commit is a release."""


def version_of(repository: Path) -> str:
    """Return the version that pyproject.toml declares."""
    return str(tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"])


def check(repository: Path) -> str:
    """Return the version if tree, tag and changelog agree about it. Raises NotReleasable."""
    version = version_of(repository)
    if changed := _git(repository, "status", "--porcelain"):
        raise NotReleasable(f"There are changes that are not committed:\n{changed}")
    tags = _git(repository, "tag", "--points-at", "HEAD").split()
    if f"v{version}" not in tags:
        found = f"it has {', '.join(tags)}" if tags else "it has none"
        raise NotReleasable(f"pyproject.toml says {version}, so HEAD needs the tag v{version}; {found}.")
    changelog = (repository / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.+)\n+(.*)$", changelog, re.MULTILINE)
    if not headings or headings[0][0] != "Unreleased":
        raise NotReleasable('CHANGELOG.md needs "## Unreleased" as its first heading.')
    if not headings[0][1].startswith("## "):
        raise NotReleasable(f'CHANGELOG.md has lines under "Unreleased". Move them to {version}.')
    newest = headings[0][1].removeprefix("## ")
    if not re.fullmatch(rf"{re.escape(version)} \(\d{{4}}-\d\d-\d\d\)", newest):
        raise NotReleasable(f'The newest release in CHANGELOG.md is "{newest}"; it must be "{version} (YYYY-MM-DD)".')
    return version


def build(repository: Path, folder: Path) -> tuple[Path, Path]:
    """Return the sdist, and the wheel that is built from it: so the sdist holds all that a wheel needs."""
    folder.mkdir(parents=True, exist_ok=True)
    sdist = _hatch(repository, folder, "sdist")
    with tempfile.TemporaryDirectory() as unpacked:
        with tarfile.open(sdist) as archive:
            archive.extractall(unpacked, filter="data")
        (source,) = Path(unpacked).iterdir()
        return sdist, _hatch(source, folder, "wheel")


def check_wheel(repository: Path, wheel: Path) -> Message:
    """Return the wheel's metadata if it holds every file of the packages that git knows, and no other.

    Raises NotReleasable.
    """
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (archive.read(name) for name in names if name.endswith(".dist-info/METADATA"))
    held = {name for name in names if ".dist-info/" not in name}
    tracked = set(_git(repository, "ls-files", *PACKAGES).splitlines())
    if held != tracked:
        raise NotReleasable(
            f"{wheel.name} lacks {sorted(tracked - held) or 'nothing'} and has {sorted(held - tracked) or 'nothing'} "
            "beside the packages."
        )
    return message_from_bytes(metadata)


def try_wheel(repository: Path, wheel: Path, version: str) -> None:
    """Install the wheel into an empty environment, serve the bundled model, and ask it. Raises NotReleasable."""
    with tempfile.TemporaryDirectory() as folder:
        environment = Path(folder) / "environment"
        venv.create(environment, with_pip=True)
        pip = [environment / "bin" / "python", "-m", "pip", "--disable-pip-version-check"]
        _run(*pip, "install", "--quiet", "--require-hashes", "-r", repository / "requirements" / "serving.txt")
        _run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel)
        _run(*pip, "check")
        imageclass = environment / "bin" / "imageclass"
        said = _run(imageclass, "--version", cwd=folder).strip()
        if said != f"imageclass {version}":
            raise NotReleasable(f"imageclass --version says {said}.")
        shutil.copytree(repository / "model_store", Path(folder) / "model_store")
        answer = _served(imageclass, Path(folder), (repository / PICTURE).read_bytes())
        print(f"POST /predict of {PICTURE}: {answer['label']} {answer['probability']:.6f}, by {answer['model']}")
        if answer["label"] != Path(PICTURE).name[0]:
            raise NotReleasable(f"{PICTURE} was called {answer['label']}.")


def _served(imageclass: Path, folder: Path, picture: bytes) -> dict[str, object]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    service = subprocess.Popen([imageclass, "serve", "--port", str(port), "--workers", "1"], cwd=folder)
    try:
        deadline = time.monotonic() + _STARTS_WITHIN_S
        while not _is_ready(url):
            if service.poll() is not None or time.monotonic() > deadline:
                raise NotReleasable("The service did not start; its log is above.")
            time.sleep(0.2)
        request = urllib.request.Request(f"{url}/predict", picture, {"Content-Type": "image/png"})
        with urllib.request.urlopen(request, timeout=30) as response:
            found: dict[str, object] = json.load(response)
        return found
    finally:
        service.terminate()
        service.wait()


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health/ready", timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def _hatch(source: Path, folder: Path, target: str) -> Path:
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    _run(sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", folder.resolve(), cwd=source)
    (built,) = (path for path in folder.iterdir() if before.get(path) != path.stat().st_mtime_ns)
    return built


def _git(repository: Path, *words: str) -> str:
    return _run("git", *words, cwd=repository).rstrip("\n")


def _run(*command: object, cwd: object = None) -> str:
    done = subprocess.run(
        [str(word) for word in command], cwd=str(cwd) if cwd else None, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise NotReleasable(f"`{' '.join(map(str, command))}` failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def main() -> None:
    repository = Path(__file__).parents[1]
    try:
        version = check(repository)
        print(f"{version}: tag, changelog and pyproject.toml agree, and nothing is uncommitted")
        shutil.rmtree(repository / "dist", ignore_errors=True)
        sdist, wheel = build(repository, repository / "dist")
        check_wheel(repository, wheel)
        print(f"{wheel.name}: every file of {', '.join(PACKAGES)}, and no other; built from {sdist.name}")
        try_wheel(repository, wheel, version)
    except NotReleasable as exc:
        sys.exit(f"error: {exc}")
    for path in (sdist, wheel):
        print(f"{path.relative_to(repository)}  {path.stat().st_size:,} bytes")
    print(f"Publish it: git push origin v{version}, and upload dist/.")


if __name__ == "__main__":
    main()
