"""The manifests as the cluster of the tests can run them: it is Kubernetes 1.20, and has one node.

Debian has the sources of no later API server. This module has all that is changed.
"""

from pathlib import Path

import yaml

from tests.deploy.manifests import Document, documents

_NAMES = {"autoscaling/v2": "autoscaling/v2beta2", "policy/v1": "policy/v1beta1"}
"""What 1.20 calls the versions of an API that it has under an earlier name, with the same fields."""


def for_this_cluster(folder: Path, variables: dict[str, str] | None = None) -> None:
    """Rewrite all files of a folder. `variables` are added to each Deployment's container."""
    for file in folder.glob("*.yaml"):
        changed = [_changed(document, variables or {}) for document in documents(file)]
        file.write_text(yaml.safe_dump_all(changed, sort_keys=False), encoding="utf-8")


def _changed(document: Document, variables: dict[str, str]) -> Document:
    document["apiVersion"] = _NAMES.get(document["apiVersion"], document["apiVersion"])
    if document["kind"] == "PodDisruptionBudget":
        del document["spec"]["unhealthyPodEvictionPolicy"]
    if document["kind"] == "Deployment":
        [container] = document["spec"]["template"]["spec"]["containers"]
        stop = container["lifecycle"]["preStop"]
        stop["exec"] = {"command": ["sleep", str(stop.pop("sleep")["seconds"])]}
        container["resources"]["requests"]["cpu"] = "100m"  # four replicas, while an update runs, on two cores
        container["env"] += [{"name": name, "value": value} for name, value in variables.items()]
    return document
