"""A Kubernetes cluster of one node, in namespaces of its own on this machine, from what `make setup-cluster` builds.

Processes, mounts and network are the namespaces': they end with the namespaces' first process, and take everything with
them. A pair of virtual interfaces connects the node with this machine, which has routes to its pods and Services.
"""

import json
import os
import secrets
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import httpx

from tests.end_to_end.callers import free_port, until

REPOSITORY = Path(__file__).parents[2]
PROGRAMS = REPOSITORY / "build" / "cluster"
"""What `make setup-cluster` fills."""
STAMP = PROGRAMS / "versions.txt"
"""What it writes last."""

NAME = "node"
MACHINE, NODE = "10.243.77.1", "10.243.77.2"
"""This machine and the node, on the network between them."""
PODS, SERVICES = "10.243.78.0/24", "10.243.79.0/24"
_API_PORT, _ETCD_PORT, _KUBELET_PORT = 6443, 2379, 10250
_START_S = 180
_CONTROL_GROUP = "kubepods"
"""What the kubelet makes at the root of each hierarchy of control groups."""
_NODE = """
set -e
mount --make-rshared /
for folder in /run /var/log; do mount -t tmpfs tmpfs $folder; done
mkdir -p /run/netns
sysctl -qw net.ipv4.ip_forward=1
ip link set lo up
echo ready
exec sleep infinity
"""
"""The first process of the namespaces. What programs write outside of their own folders is in memory."""


_WITH_THE_TESTS = ("setpriv", "--pdeathsig", "KILL")
"""Ends what it runs if the tests are killed."""
_IN_NAMESPACES = ("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
_CONTAINERD = """
version = 2
root = "{folder}/containerd"
state = "{folder}/containers"
disabled_plugins = ["io.containerd.internal.v1.opt"]

[grpc]
address = "{socket}"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{registry}/pause"
restrict_oom_score_adj = true

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "{folder}/networks"
"""


def why_not() -> str:
    """Return why there can be no cluster here; empty if there can be one."""
    if not STAMP.exists():
        return "the programs of a cluster are not there: make setup-cluster builds them"
    if os.geteuid() != 0:
        return "a cluster's node needs root"
    return ""


class Node:
    """A cluster: its API server, controllers, scheduler, and the one node that runs its pods.

    Images come from the registry at `registry`, to which this machine can push.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.registry = f"127.0.0.1:{free_port()}"
        self.kubeconfig = folder / "kubeconfig"
        self._link = f"ic{secrets.token_hex(3)}"
        self._init: subprocess.Popen[str] | None = None
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def environment(self) -> dict[str, str]:
        """What makes a shell's `kubectl` the cluster's administrator."""
        return {"KUBECONFIG": str(self.kubeconfig), "PATH": f"{PROGRAMS / 'bin'}:{os.environ['PATH']}"}

    def kubectl(self, *arguments: str, given: str = "") -> str:
        """Run kubectl and return what it printed. Raises RuntimeError."""
        done = subprocess.run(
            ["kubectl", *arguments],
            env={**os.environ, **self.environment},
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"kubectl {' '.join(arguments)}: {done.stderr}")
        return done.stdout

    def start(self) -> None:
        self._open_namespaces()
        self._write_access()
        self._start_registries()
        self._start_control_plane()
        self._start_node()
        until(lambda: "True" in self._status_of_node(), _START_S)

    def stop(self) -> None:
        if self._init is not None:
            self._init.kill()  # and with it every process of the namespaces
            self._init.wait()
        for process in self._processes:
            process.kill()
            process.wait()
        subprocess.run(["ip", "link", "delete", self._link], capture_output=True, check=False)
        for root in Path("/sys/fs/cgroup").glob(f"**/{_CONTROL_GROUP}"):
            groups = [root, *(path for path in root.rglob("*") if path.is_dir())]
            for group in sorted(groups, reverse=True):
                until(partial(_removed, group))

    def _open_namespaces(self) -> None:
        command = [*_WITH_THE_TESTS, *_IN_NAMESPACES, "bash", "-c", _NODE]
        self._init = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._init.stdout is not None
        with self._init.stdout as output:
            assert output.readline() == "ready\n"
        inside = self._first_process()
        _ip("link", "add", self._link, "type", "veth", "peer", "name", "node0", "netns", inside)
        _ip("address", "add", f"{MACHINE}/30", "dev", self._link)
        _ip("link", "set", self._link, "up")
        self._run_inside("ip", "address", "add", f"{NODE}/30", "dev", "node0")
        self._run_inside("ip", "link", "set", "node0", "up")
        self._run_inside("ip", "route", "add", "default", "via", MACHINE)
        for network in (PODS, SERVICES):
            _ip("route", "add", network, "via", NODE)

    def _first_process(self) -> str:
        assert self._init is not None
        children = Path(f"/proc/{self._init.pid}/task/{self._init.pid}/children").read_text(encoding="ascii")
        return children.split()[0]

    def _enter(self) -> list[str]:
        return ["nsenter", "--target", self._first_process(), "--mount", "--net", "--pid", "--"]

    def _run_inside(self, *command: str) -> None:
        subprocess.run([*self._enter(), *command], check=True)

    def _write_access(self) -> None:
        """Write the key of service accounts, and the one token by which all programs are administrators."""
        token = secrets.token_hex(16)
        (self.folder / "tokens.csv").write_text(f'{token},admin,admin,"system:masters"\n', encoding="utf-8")
        key = self.folder / "service-accounts.key"
        subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
        cluster = {"server": f"https://{NODE}:{_API_PORT}", "insecure-skip-tls-verify": True}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "tests", "cluster": cluster}],
            "users": [{"name": "admin", "user": {"token": token}}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "admin"}}],
            "current-context": "tests",
        }
        self.kubeconfig.write_text(json.dumps(config), encoding="utf-8")

    def _start_registries(self) -> None:
        """Start two servers of the same images, at the same address of this machine and of the node."""
        config = self.folder / "registry.json"
        storage = {"filesystem": {"rootdirectory": str(self.folder / "registry")}}
        config.write_text(
            json.dumps({"version": 0.1, "storage": storage, "http": {"addr": self.registry, "secret": "tests"}}),
            "utf-8",
        )
        self._run("registry", [*_WITH_THE_TESTS, _program("docker-registry"), "serve", str(config)])
        self._start("docker-registry", "serve", str(config))
        until(lambda: _answers(f"http://{self.registry}/v2/"))

    def _start_control_plane(self) -> None:
        etcd = f"http://127.0.0.1:{_ETCD_PORT}"
        key = str(self.folder / "service-accounts.key")
        self._start("etcd", data_dir=self.folder / "etcd", listen_client_urls=etcd, advertise_client_urls=etcd)
        self._start(
            "kube-apiserver",
            etcd_servers=etcd,
            bind_address=NODE,
            secure_port=_API_PORT,
            cert_dir=self.folder / "certificates",
            service_cluster_ip_range=SERVICES,
            service_account_issuer="https://kubernetes.default.svc",
            service_account_key_file=key,
            service_account_signing_key_file=key,
            token_auth_file=self.folder / "tokens.csv",
            authorization_mode="RBAC",
            kubelet_preferred_address_types="InternalIP",
        )
        until(self._ready, _START_S)
        common = {
            "kubeconfig": self.kubeconfig,
            "leader_elect": "false",
            "port": 0,
            "cert_dir": self.folder / "certificates",
        }
        self._start("kube-controller-manager", service_account_private_key_file=key, **common)
        self._start("kube-scheduler", **common)

    def _start_node(self) -> None:
        network = {
            "cniVersion": "0.4.0",
            "name": "pods",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": "pods0",
                    "isGateway": True,
                    "hairpinMode": True,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": str(self.folder / "addresses"),
                        "ranges": [[{"subnet": PODS}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                }
            ],
        }
        networks = self.folder / "networks"
        networks.mkdir()
        (networks / "pods.conflist").write_text(json.dumps(network), encoding="utf-8")
        socket = self.folder / "containerd.sock"
        (self.folder / "containerd.toml").write_text(
            _CONTAINERD.format(
                folder=self.folder, socket=socket, registry=self.registry, plugins=PROGRAMS / "networks"
            ),
            encoding="utf-8",
        )
        self._start("containerd", "--config", str(self.folder / "containerd.toml"))
        until(socket.exists, _START_S)
        config = self.folder / "kubelet.json"
        config.write_text(json.dumps(self._kubelet()), encoding="utf-8")
        self._start(
            "kubelet",
            config=config,
            kubeconfig=self.kubeconfig,
            container_runtime="remote",
            container_runtime_endpoint=f"unix://{socket}",
            root_dir=self.folder / "kubelet",
            cert_dir=self.folder / "certificates",
            node_ip=NODE,
            hostname_override=NAME,
        )
        self._start(
            "kube-proxy",
            kubeconfig=self.kubeconfig,
            proxy_mode="iptables",
            hostname_override=NAME,
            conntrack_max_per_core=0,
            conntrack_tcp_timeout_established=0,
            conntrack_tcp_timeout_close_wait=0,
        )

    def _kubelet(self) -> dict[str, object]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": NODE,
            "port": _KUBELET_PORT,
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},  # its address is this machine's alone
            "cgroupDriver": "cgroupfs",
            "failSwapOn": False,
            "evictionHard": {"memory.available": "100Mi"},  # how full this machine's disk is says nothing
            "imageGCHighThresholdPercent": 100,
            "resolvConf": "/etc/resolv.conf",
        }

    def _start(self, program: str, *arguments: str, **options: object) -> None:
        """Start a program on the node; `bind_address=NODE` is its option `--bind-address`."""
        given = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        self._run(program, [*self._enter(), _program(program), *arguments, *given])

    def _run(self, name: str, command: Sequence[str]) -> None:
        environment = {"PATH": self.environment["PATH"], "HOME": str(self.folder)}
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        self._processes.append(process)

    def _ready(self) -> bool:
        with suppress(RuntimeError):
            return self.kubectl("get", "--raw", "/readyz") == "ok"
        return False

    def _status_of_node(self) -> str:
        with suppress(RuntimeError):
            return self.kubectl(
                "get", "node", NAME, "--output=jsonpath={.status.conditions[?(@.type=='Ready')].status}"
            )
        return ""


def _program(name: str) -> str:
    return str(PROGRAMS / "bin" / name)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).is_success
    except httpx.TransportError:
        return False


def _removed(group: Path) -> bool:
    """Remove a control group; one that still has a process cannot be removed yet."""
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
