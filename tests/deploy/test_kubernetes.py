"""The manifests of deploy/kubernetes without a cluster: their schemas, and what they say about this service."""

import copy
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args

import httpx
import jsonschema
import kubernetes_validate
import pytest
import yaml

from app.contract.location import BucketAddress
from app.errors import BundleNotFound
from app.main import load_from
from app.metrics import FAMILIES, Stage
from app.settings import ENV_PREFIX, Settings, ignored_variables
from tests.deploy.manifests import FOLDERS, GENERATED, KUBERNETES, NEWEST, OLDEST, Document, check, documents, one
from tests.end_to_end.pages import opened
from tools.release import version_of

ALL = [(file, document) for file in sorted(GENERATED.glob("*.yaml")) for document in documents(file)]
IDS = [f"{file.stem}-{document['kind']}" for file, document in ALL]


@dataclass(frozen=True)
class Pod:
    """A pod as the cluster runs it, and its one container."""

    spec: Document
    container: Document

    @property
    def environment(self) -> dict[str, str]:
        return {variable["name"]: variable["value"] for variable in self.container["env"]}

    def settings(self, monkeypatch: pytest.MonkeyPatch) -> Settings:
        for name, value in self.environment.items():
            monkeypatch.setenv(name, value)
        return Settings.load()


def _deployed(file: str) -> Pod:
    spec = one(file, "Deployment")["spec"]["template"]["spec"]
    [container] = spec["containers"]
    return Pod(spec, container)


def _by_kserve() -> Pod:
    """The runtime's pod with what the InferenceService adds, as KServe merges them."""
    runtime = one("kserve", "ServingRuntime")["spec"]
    predictor = dict(one("kserve", "InferenceService")["spec"]["predictor"])
    model = predictor.pop("model")
    [container] = runtime["containers"]
    spec = {"volumes": runtime["volumes"], **predictor}
    return Pod(spec, {**container, "env": container["env"] + model["env"]})


PODS = {"deployment": _deployed("base"), "kserve": _by_kserve(), "object-storage": _deployed("object-storage")}


@pytest.fixture(params=PODS)
def pod(request: pytest.FixtureRequest) -> Pod:
    return PODS[request.param]


# Schemas


def test_every_folder_has_its_generated_file_and_nothing_else_is_there() -> None:
    assert sorted(file.name for file in GENERATED.iterdir()) == sorted(f"{folder.name}.yaml" for folder in FOLDERS)


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize(("file", "document"), ALL, ids=IDS)
def test_every_document_fits_its_schema(file: Path, document: Document, version: str) -> None:
    check(document, version)


@pytest.mark.parametrize(("file", "document"), ALL, ids=IDS)
def test_a_misspelt_field_does_not_fit(file: Path, document: Document) -> None:
    wrong = {**document, "spec": {**document["spec"], "misspelt": 1}}
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        check(wrong, NEWEST)


@pytest.mark.parametrize(
    ("file", "kind", "path"),
    [
        ("base", "Deployment", "template.spec.containers.0.livenessProbe.httpGet.port"),
        ("base", "Service", "ports.0.port"),
        ("base", "HorizontalPodAutoscaler", "maxReplicas"),
        ("keda", "ScaledObject", "maxReplicaCount"),
        ("gateway-api", "HTTPRoute", "rules.0.backendRefs.0.port"),
        ("servicemonitor", "ServiceMonitor", "endpoints.0.interval"),
        ("kserve", "ServingRuntime", "containers.0.ports.0.containerPort"),
        ("kserve", "InferenceService", "predictor.model.modelFormat"),
    ],
)
def test_a_value_of_another_type_does_not_fit(file: str, kind: str, path: str) -> None:
    wrong = copy.deepcopy(one(file, kind))
    *way, last = (int(step) if step.isdigit() else step for step in path.split("."))
    place: Any = wrong["spec"]
    for step in way:
        place = place[step]
    assert place[last]
    place[last] = ["neither", "number", "nor", "text"]
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        check(wrong, NEWEST)


def test_a_kind_of_which_nothing_is_known_and_a_file_without_documents_are_errors(tmp_path: Path) -> None:
    with pytest.raises(kubernetes_validate.SchemaNotFoundError):
        check({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "it"}}, NEWEST)
    (tmp_path / "empty.yaml").write_text("---\n# nothing\n---\n")
    with pytest.raises(ValueError, match="holds no document"):
        documents(tmp_path / "empty.yaml")


# Generated and base


@cache
def _why_no_kustomize() -> str:
    """Return why the generated files cannot be made here; empty if they can."""
    if shutil.which("kubectl") is None:
        return "there is no kubectl"
    said = subprocess.run(["kubectl", "version", "--client"], capture_output=True, text=True, timeout=60, check=False)
    found = re.search(r"Kustomize Version: v(\d+)", said.stdout)
    return "" if found and int(found[1]) >= 5 else "kubectl brings no kustomize 5"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_generated_files_are_what_kustomize_makes(folder: Path) -> None:
    if reason := _why_no_kustomize():
        pytest.skip(reason)
    made = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, timeout=60, check=True)
    assert (GENERATED / f"{folder.name}.yaml").read_text("utf-8") == made.stdout, "run `make manifests`"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_generated_files_say_what_their_sources_say_but_for_patches(folder: Path) -> None:
    """The same without kustomize."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text("utf-8"))
    sources = {
        (document["kind"], document["metadata"]["name"]): document
        for place in kustomization["resources"]
        for file in ([folder / place] if place.endswith(".yaml") else sorted((folder / place).glob("*.yaml")))
        if file.name != "kustomization.yaml"
        for document in documents(file)
    }
    autoscaler = ("HorizontalPodAutoscaler", "image-classifier")
    if folder.name == "cpu-only":
        sources[autoscaler]["spec"]["metrics"] = [sources[autoscaler]["spec"]["metrics"][0]]
    if folder.name == "keda":
        del sources[autoscaler]
    made = documents(GENERATED / f"{folder.name}.yaml")
    if folder.name == "object-storage":
        del sources["PersistentVolumeClaim", "image-classifier-models"]
        for document in (*sources.values(), *made):
            _forget_the_store(document)
    assert {(document["kind"], document["metadata"]["name"]): document for document in made} == sources


def _forget_the_store(document: Document) -> None:
    """Take out of a Deployment what says from where its models come."""
    if document["kind"] == "Deployment":
        pod = document["spec"]["template"]["spec"]
        for place, what in ((pod, "volumes"), (pod["containers"][0], "volumeMounts"), (pod["containers"][0], "env")):
            del place[what]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_container_runs_the_placeholder_that_the_page_tells_how_to_replace(
    folder: Path, repository: Path
) -> None:
    text = (GENERATED / f"{folder.name}.yaml").read_text("utf-8")
    assert set(re.findall(r"image: (.+)", text)) <= {f"registry.example.com/imageclass:{version_of(repository)}"}


def test_a_kustomization_as_the_page_has_it_sets_namespace_and_image(docs_kustomization: Path) -> None:
    if reason := _why_no_kustomize():
        pytest.skip(reason)
    command = ["kubectl", "kustomize", str(docs_kustomization)]
    made = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    found = list(yaml.safe_load_all(made))
    assert {document["metadata"]["namespace"] for document in found} == {"images"}
    assert {document["kind"] for document in found} >= {"Deployment", "HTTPRoute", "ServiceMonitor"}
    assert re.findall(r"image: (.+)", made) == ["registry.example.org/me/imageclass:2026-11-26"]


@pytest.fixture
def docs_kustomization(repository: Path, tmp_path: Path) -> Path:
    """The page's kustomization of one's own, in a folder beside a checkout."""
    with opened("docs/how-to/kustomize.md") as page:
        text = page.block("yaml")
    (tmp_path / "imageclass").symlink_to(repository)
    (tmp_path / "my-cluster").mkdir()
    (tmp_path / "my-cluster" / "kustomization.yaml").write_text(text)
    return tmp_path / "my-cluster"


# What they say about this service


async def test_probes_and_scrapes_ask_for_paths_that_the_service_answers(client: httpx.AsyncClient, pod: Pod) -> None:
    paths = {pod.container[probe]["httpGet"]["path"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")}
    monitor = one("servicemonitor", "ServiceMonitor")["spec"]["endpoints"]
    runtime = one("kserve", "ServingRuntime")["spec"]["annotations"]
    for path in {*paths, *(endpoint["path"] for endpoint in monitor), runtime["prometheus.io/path"]}:
        assert (await client.get(path)).status_code == 200, path


async def test_the_gateway_lets_clients_ask_and_keeps_metrics_docs_and_health_inside(client: httpx.AsyncClient) -> None:
    [rule] = one("gateway-api", "HTTPRoute")["spec"]["rules"]
    prefixes = {match["path"]["value"] for match in rule["matches"]}
    document = (await client.get("/openapi.json")).json()
    first = {f"/{path.split('/')[1]}" for path in document["paths"]}
    assert prefixes == first - {"/metrics", "/health"}


async def test_a_model_is_ready_by_the_name_of_its_inference_service(client: httpx.AsyncClient) -> None:
    name = one("kserve", "InferenceService")["metadata"]["name"]
    assert (await client.get(f"/v2/models/{name}/ready")).status_code == 200
    assert PODS["kserve"].environment["IMAGECLASS_MODEL"] == name


def test_a_bundle_itself_is_no_store(repository: Path) -> None:
    """A storageUri that names a version, or all versions of a model, is told at the start."""
    for wrong in (repository / "model_store" / "mnist", repository / "model_store" / "mnist" / "1"):
        with pytest.raises(BundleNotFound, match="holds no model"):
            load_from(Settings(model_store=wrong))


def test_every_variable_is_a_setting_with_a_value_that_it_allows(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ignored_variables(pod.environment) == []
    settings = pod.settings(monkeypatch)
    assert settings.host == "0.0.0.0"


def test_the_grace_covers_pre_stop_delay_and_drain_with_5_seconds_on_top(
    pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = pod.settings(monkeypatch)
    before_sigterm = pod.container["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain = settings.shutdown_delay_s + settings.shutdown_grace_s
    assert before_sigterm > 0
    assert pod.spec["terminationGracePeriodSeconds"] >= before_sigterm + drain + 5


def test_kubernetes_waits_longer_for_a_hung_worker_than_the_supervisor_does(
    pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = pod.container["livenessProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] > pod.settings(monkeypatch).worker_hung_after_s


def test_no_service_sets_variables_that_begin_as_settings_do(pod: Pod) -> None:
    services = [document["metadata"]["name"] for _, document in ALL if document["kind"] == "Service"]
    of_kserve = one("kserve", "InferenceService")["metadata"]["name"] + "-predictor"
    for name in [*services, of_kserve]:
        assert not f"{name.upper().replace('-', '_')}_".startswith(ENV_PREFIX)
    assert pod.spec["enableServiceLinks"] is False


def test_ports_match(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    [port] = pod.container["ports"]
    assert port["containerPort"] == pod.settings(monkeypatch).port
    assert {pod.container[f"{probe}Probe"]["httpGet"]["port"] for probe in ("startup", "readiness", "liveness")} == {
        port["name"]
    }
    [of_service] = one("base", "Service")["spec"]["ports"]
    assert of_service["targetPort"] == port["name"]
    [rule] = one("gateway-api", "HTTPRoute")["spec"]["rules"]
    assert rule["backendRefs"] == [{"name": one("base", "Service")["metadata"]["name"], "port": of_service["port"]}]
    [endpoint] = one("servicemonitor", "ServiceMonitor")["spec"]["endpoints"]
    assert endpoint["port"] == of_service["name"]
    annotations = one("kserve", "ServingRuntime")["spec"]["annotations"]
    assert annotations["prometheus.io/port"] == str(port["containerPort"])


def test_selectors_select_the_pods_and_targets_exist() -> None:
    deployment = one("base", "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    selected = [
        deployment["spec"]["selector"]["matchLabels"],
        one("base", "Service")["spec"]["selector"],
        one("base", "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        *(spread["labelSelector"]["matchLabels"] for spread in PODS["deployment"].spec["topologySpreadConstraints"]),
    ]
    assert all(selector == labels for selector in selected)
    monitored = one("servicemonitor", "ServiceMonitor")["spec"]["selector"]["matchLabels"]
    assert monitored.items() <= one("base", "Service")["metadata"]["labels"].items()
    name = deployment["metadata"]["name"]
    assert one("base", "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"] == name
    assert one("keda", "ScaledObject")["spec"]["scaleTargetRef"]["name"] == name
    service = one("kserve", "InferenceService")["metadata"]["name"]
    assert one("kserve", "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"] == f"{service}-predictor"
    assert one("kserve", "HorizontalPodAutoscaler")["metadata"]["name"] != f"{service}-predictor"


def test_the_pod_is_as_restricted_as_the_strictest_pod_security_standard_asks(pod: Pod) -> None:
    security = {**pod.spec.get("securityContext", {}), **pod.container["securityContext"]}
    assert security == {
        "runAsNonRoot": True,
        "runAsGroup": 0,
        "seccompProfile": {"type": "RuntimeDefault"},
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }


def test_no_pod_has_a_group_without_a_user(pod: Pod) -> None:
    """The kubelet adds the image's user for a container only, and a runtime must reject a group without a user."""
    assert "runAsGroup" not in pod.spec.get("securityContext", {})


def test_only_an_empty_folder_can_be_written_and_the_models_are_read_only(
    pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    volumes = {volume["name"]: volume for volume in pod.spec["volumes"]}
    settings = pod.settings(monkeypatch)
    for mount in pod.container["volumeMounts"]:
        if mount["mountPath"] in {"/tmp", str(settings.model_cache)}:
            assert volumes[mount["name"]]["emptyDir"]["sizeLimit"]
        elif isinstance(settings.model_store, BucketAddress):
            assert mount["readOnly"] is True
            assert "secret" in volumes[mount["name"]]
        else:
            assert Path(mount["mountPath"]) == settings.model_store
            assert mount["readOnly"] is True
            assert volumes[mount["name"]]["persistentVolumeClaim"] == {
                "claimName": one("base", "PersistentVolumeClaim")["metadata"]["name"],
                "readOnly": True,
            }


def test_kserve_runs_the_container_of_the_deployment_on_its_own_folder() -> None:
    ours, theirs = (copy.deepcopy(PODS[pod].container) for pod in ("deployment", "kserve"))
    assert theirs["name"] == "kserve-container"
    differs = {"name", "env", "securityContext", "volumeMounts"}
    assert {key: value for key, value in ours.items() if key not in differs} == {
        key: value for key, value in theirs.items() if key not in differs
    }
    added = {"IMAGECLASS_MODEL": "mnist", "IMAGECLASS_MODEL_STORE": "/mnt/models"}
    assert PODS["kserve"].environment == PODS["deployment"].environment | added


def test_models_of_a_bucket_are_kept_in_a_volume_that_has_room_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    pod = PODS["object-storage"]
    settings = pod.settings(monkeypatch)
    assert isinstance(settings.model_store, BucketAddress)
    [cache] = [mount for mount in pod.container["volumeMounts"] if mount["mountPath"] == str(settings.model_cache)]
    [volume] = [volume for volume in pod.spec["volumes"] if volume["name"] == cache["name"]]
    assert settings.model_cache_bytes < int(volume["emptyDir"]["sizeLimit"].removesuffix("Gi")) * 1024**3
    assert "readOnly" not in cache
    assert set(pod.environment) - set(PODS["deployment"].environment) == {
        "AWS_REGION",
        "AWS_SHARED_CREDENTIALS_FILE",
        "IMAGECLASS_MODEL_CACHE",
        "IMAGECLASS_MODEL_CACHE_BYTES",
        "IMAGECLASS_RELOAD_INTERVAL_S",
    }
    folder, _, _ = pod.environment["AWS_SHARED_CREDENTIALS_FILE"].rpartition("/")
    [credentials] = [mount for mount in pod.container["volumeMounts"] if mount["mountPath"] == folder]
    assert credentials["readOnly"]


# Autoscaling


def test_every_metric_and_stage_that_is_asked_for_exists() -> None:
    suffixes = {"counter": ["_total"], "gauge": [""], "summary": ["_sum", "_count"]}
    known = {
        name + suffix
        for name, family in FAMILIES.items()
        for suffix in suffixes.get(family.kind, ["_sum", "_count", "_bucket"])
    }
    queries = "\n".join(
        file.read_text("utf-8")
        for file in (KUBERNETES / "prometheus-adapter.yaml", KUBERNETES / "overlays" / "keda" / "scaled-object.yaml")
    )
    asked = set(re.findall(r"(imageclass_\w+)\{", queries))
    assert asked == {"imageclass_stage_seconds_sum", "imageclass_stage_seconds_count"}
    assert asked <= known
    assert set(re.findall(r'stage="(\w+)"', queries)) <= set(get_args(Stage))


@pytest.mark.parametrize("file", ["base", "kserve"])
def test_the_autoscalers_metric_is_what_the_adapters_rule_makes(file: str) -> None:
    [rule] = yaml.safe_load((KUBERNETES / "prometheus-adapter.yaml").read_text("utf-8"))["rules"]["custom"]
    _, pods = one(file, "HorizontalPodAutoscaler")["spec"]["metrics"]
    assert pods["pods"]["metric"]["name"] == rule["name"]["as"]
    [series] = re.findall(r"^(\w+)\{", rule["seriesQuery"])
    assert re.fullmatch(rule["name"]["matches"], series)


def test_all_autoscalers_have_the_same_bounds_targets_and_pace() -> None:
    base, kserve = (one(file, "HorizontalPodAutoscaler")["spec"] for file in ("base", "kserve"))
    assert {**base, "scaleTargetRef": None} == {**kserve, "scaleTargetRef": None}
    scaled = one("keda", "ScaledObject")["spec"]
    assert (scaled["minReplicaCount"], scaled["maxReplicaCount"]) == (base["minReplicas"], base["maxReplicas"])
    assert scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] == base["behavior"]
    cpu, queue = scaled["triggers"]
    by_cpu, by_queue = base["metrics"]
    assert int(cpu["metadata"]["value"]) == by_cpu["resource"]["target"]["averageUtilization"]
    assert f"{float(queue['metadata']['threshold']) * 1000:g}m" == by_queue["pods"]["target"]["averageValue"]
