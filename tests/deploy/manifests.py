"""The manifests of deploy/kubernetes, and the schemas that they are held against."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml
from kubernetes_validate.utils import schema_contents
from referencing import Registry, Resource

Document = dict[str, Any]

REPOSITORY = Path(__file__).parents[2]
KUBERNETES = REPOSITORY / "deploy" / "kubernetes"
GENERATED = KUBERNETES / "generated"
FOLDERS = [KUBERNETES / "base", KUBERNETES / "kserve", *sorted((KUBERNETES / "overlays").iterdir())]
"""What `make manifests` writes a file of each for."""
SCHEMAS = REPOSITORY / "tests" / "data" / "schemas"
"""Of custom resources, each in a file <group>-<version>-<kind>.json."""
OLDEST, NEWEST = "1.30", "1.37"
"""The versions of Kubernetes that the manifests are for. 1.30 is the first that has `preStop: sleep` by default."""


def documents(file: Path) -> list[Document]:
    """Return the documents of a file. Raises ValueError if it has none: a check of nothing must not pass."""
    found = [document for document in yaml.safe_load_all(file.read_text(encoding="utf-8")) if document]
    if not found:
        raise ValueError(f"{file} holds no document.")
    return found


def check(document: Document, version: str) -> None:
    """Hold a document against its schema, of core kinds in this version of Kubernetes; unknown fields are errors, too.

    Raises ValidationError if it does not fit, and SchemaNotFoundError if nothing is known of its kind.
    """
    file = SCHEMAS / f"{document['apiVersion'].replace('/', '-')}-{document['kind']}.json"
    if file.exists():
        validator = jsonschema.Draft202012Validator(json.loads(file.read_text("utf-8")), registry=_core_kinds())
        validator.validate(document)
    else:
        kubernetes_validate.validate(document, version, strict=True)


@cache
def _core_kinds() -> Registry[Any]:
    """What schemas of custom resources refer to for containers, volumes and the like."""
    folder = f"kubernetes-json-schema/v{NEWEST}.0-local-strict"
    definitions = Resource.from_contents(schema_contents(f"{folder}/_definitions.json", NEWEST))
    registry: Registry[Any] = Registry()
    return definitions @ registry


def one(file: str, kind: str) -> Document:
    """Return the one document of this kind in a generated file."""
    [found] = [document for document in documents(GENERATED / f"{file}.yaml") if document["kind"] == kind]
    return found
