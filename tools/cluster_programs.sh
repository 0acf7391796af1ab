#!/bin/bash
# Fill build/cluster with the programs of a Kubernetes cluster: `make setup-cluster`, as root, on Debian, for tests/cluster.
#
# Kubernetes is built from the sources of Debian 12, which are the last ones in Debian that have the servers: later ones
# hold kubectl alone. Go and all other programs are Debian's packages of the same release, unpacked into build/cluster
# and not installed. apt-get fetches them from the mirror of this machine's own sources, and checks Debian's signatures.
set -euo pipefail
SUITE=bookworm
SOURCE=kubernetes=1.20.5+really1.20.2-1.1+deb12u1
PROGRAMS=(etcd-server=3.4.23-4+b4 containerd=1.6.20~ds1-1+deb12u3 runc=1.1.5+ds1-1+deb12u1
  containernetworking-plugins=1.1.1+ds1-3+b5 docker-registry=2.8.2+ds1-1)
BUILDERS=(golang-1.19-go=1.19.8-2 golang-1.19-src=1.19.8-2 golang-github-modern-go-reflect2-dev=1.0.2-2 rsync libpopt0 libxxhash0)
COMMANDS=(kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl)

target=$(cd "$(dirname "$0")/.." && pwd)/build/cluster
versions=$(printf '%s\n' "$SOURCE" "${PROGRAMS[@]}" "${BUILDERS[@]}" "$(sha256sum <"$0")")
if [ "$(cat "$target/versions.txt" 2>/dev/null)" = "$versions" ]; then exit 0; fi
fail() { echo "make: $*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || fail "the programs of a cluster need root"
for program in apt-get dpkg-source gcc make; do
  command -v $program >/dev/null || fail "there is no $program; install Debian's dpkg-dev, gcc and make"
done
rm -rf "$target"
work=$target/work
mkdir -p "$target/bin" "$work"/{apt/lists/partial,apt/cache/archives/partial,packages,unpacked}

echo "fetching Debian's packages (once)"
mirror=$(apt-get indextargets --format '$(SITE) $(IDENTIFIER)' 'Label: Debian' | awk '$2 == "Packages" { print $1; exit }')
for kind in deb deb-src; do
  echo "$kind [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $SUITE main"
done >"$work/apt/sources.list"
apt=(apt-get -qq -o "Dir::Etc::sourcelist=$work/apt/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$work/apt/lists"
  -o "Dir::Cache=$work/apt/cache" -o APT::Sandbox::User=root)
"${apt[@]}" update
cd "$work/packages"
"${apt[@]}" download "${PROGRAMS[@]}" "${BUILDERS[@]}"
"${apt[@]}" source --download-only "$SOURCE"
for package in *.deb; do dpkg-deb -x "$package" "$work/unpacked"; done
dpkg-source --no-check -x kubernetes_*.dsc "$work/kubernetes" >"$work/unpack.log"

echo "building Kubernetes (once; 10 minutes on two cores)"
cd "$work/kubernetes"
# The version of reflect2 that the sources bring crashes if it was built with Go 1.18 or later.
rm -r vendor/github.com/modern-go/reflect2
cp -r "$work/unpacked/usr/share/gocode/src/github.com/modern-go/reflect2" vendor/github.com/modern-go/
export GOROOT=$work/unpacked/usr/lib/go-1.19 GOCACHE=$work/cache HOME=$work GOPATH=$PWD/.go GO111MODULE=off CGO_ENABLED=0
mkdir -p .go/src/k8s.io
ln -s ../../.. .go/src/k8s.io/kubernetes
libraries=$(echo "$work"/unpacked/usr/lib/*-linux-gnu)
PATH=$GOROOT/bin:$work/unpacked/usr/bin:$PATH LD_LIBRARY_PATH=$libraries make WHAT="${COMMANDS[*]/#/cmd/}" >"$work/build.log" 2>&1 ||
  { tail "$work/build.log" >&2; fail "Kubernetes could not be built; $work/build.log says why"; }
cp "${COMMANDS[@]/#/_output/bin/}" "$target/bin"
gcc -Os -static -s -o "$target/bin/pause" build/pause/linux/pause.c
cp "$work"/unpacked/usr/bin/{containerd,containerd-shim-runc-v2,docker-registry,etcd} "$work/unpacked/usr/sbin/runc" "$target/bin"
cp -r "$work/unpacked/usr/lib/cni" "$target/networks"
rm -rf "$work"
echo "$versions" >"$target/versions.txt"
