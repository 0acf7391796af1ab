"""Find bundles by name, version or path."""

import re
from pathlib import Path

from app.contract.bundle import Bundle, open_bundle
from app.contract.store import ModelStore, is_model_name
from app.errors import BundleNotFound

_NAMED = re.compile(r"(?P<name>[^:/]+)[:/](?P<version>[1-9][0-9]{0,17})")


def find_bundle(store: ModelStore, text: str) -> Bundle:
    """Return the bundle that "mnist:2", "mnist/2", "mnist" (its newest version) or a path means.

    Raises a BundleError.
    """
    match = _NAMED.fullmatch(text)
    name = match["name"] if match else text
    if is_model_name(name) and (versions := store.versions(name)):
        if match is None:
            return open_bundle(store.newest(name))
        if int(match["version"]) in versions:
            return open_bundle(store.path(name, int(match["version"])))
        if not Path(text).is_dir():
            known = ", ".join(str(version) for version in versions)
            raise BundleNotFound(f"{name} has no version {match['version']} in {store.root}; it has: {known}.")
    if not Path(text).is_dir():
        raise BundleNotFound(f"'{text}' is neither a model in {store.root}, as mnist:2, nor the folder of a bundle.")
    return open_bundle(Path(text).resolve())
