"""The release that is running."""

from importlib.metadata import PackageNotFoundError, version


def release() -> str:
    """Return the version of the installed package, or `0+checkout` if the code runs from a checkout."""
    try:
        return version("imageclass")
    except PackageNotFoundError:
        return "0+checkout"
