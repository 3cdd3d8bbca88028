#!/bin/bash
# Installs what building, testing and the demo need and this machine lacks. Says nothing and takes
# a fraction of a second when nothing is missing. Needs apt, python3 and Rust; nothing else.
set -euo pipefail
cd "$(dirname "$0")/.."

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
have() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || [ -x "target/tools/bin/$1" ]; }
say() { echo "setup: $*" >&2; }

command -v cargo >/dev/null || { say "Rust is missing. Next: https://rustup.rs"; exit 1; }

# Debian starts a server as soon as its package is installed. Ours are started by the tests, on
# ports of their own, so nothing may start by itself: neither now (policy-rc.d) nor at the next boot.
apt_install() {
    local policy=/usr/sbin/policy-rc.d made_policy=no
    say "installing $*"
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
        as_root chmod 755 $policy
        made_policy=yes
    fi
    local rc=0
    if [ $made_policy = yes ]; then trap 'as_root rm -f /usr/sbin/policy-rc.d' EXIT; fi
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "$@" >/tmp/commonage-setup.$$.log 2>&1 || rc=$?
    if [ $made_policy = yes ]; then as_root rm -f $policy; trap - EXIT; fi
    if [ $rc != 0 ]; then tail -20 /tmp/commonage-setup.$$.log >&2; fi
    rm -f /tmp/commonage-setup.$$.log
    return $rc
}

missing=() services=()
need() { # command, package, services that the package would start
    if ! have "$1"; then missing+=("$2"); shift 2; services+=("$@"); fi
}
need cc build-essential
need make make
need pgrep procps
need protoc protobuf-compiler
# The compiler's own .proto files are a package of their own, which the compiler only recommends.
protoc -o /dev/null google/protobuf/descriptor.proto 2>/dev/null || missing+=(libprotobuf-dev)
need etcd etcd-server etcd
need redis-server redis-server redis-server
need redis-cli redis-tools
need nginx nginx nginx
need busybox busybox-static
need docker-registry docker-registry docker-registry
need skopeo skopeo
need umoci umoci
[ -x /usr/lib/cni/bridge ] || [ -x /opt/cni/bin/bridge ] || missing+=(containernetworking-plugins)
need iptables iptables
need ip iproute2
need node nodejs
need npm npm
python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)

updated=no
refresh() { if [ $updated = no ]; then as_root apt-get update -qq; updated=yes; fi; }

if [ ${#missing[@]} != 0 ]; then
    refresh
    apt_install "${missing[@]}"
    if [ -d /run/systemd/system ] && [ ${#services[@]} != 0 ]; then
        as_root systemctl disable --now --quiet "${services[@]}" || true
    fi
fi

# Debian's kubectl, unpacked only: its package conflicts with other packages of the same command.
# It is the oldest that the tests drive our server with, and serves where there is no other.
old_kubectl=target/tools/bin/kubectl-1.20
if [ ! -x $old_kubectl ]; then
    say "unpacking Debian's kubectl into target/tools"
    refresh
    unpack=$(mktemp -d)
    (cd "$unpack" && apt-get download -qq kubernetes-client && dpkg-deb -x kubernetes-client_*.deb .)
    mkdir -p target/tools/bin
    install -m 755 "$unpack/usr/bin/kubectl" $old_kubectl
    rm -rf "$unpack"
fi
if ! have kubectl; then
    ln -s kubectl-1.20 target/tools/bin/kubectl
fi

# The stamp is the list of requirements itself: it is rebuilt when the list changes.
if ! cmp -s hack/requirements.txt .venv/requirements.txt; then
    say "Python virtual environment .venv"
    python3 -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -r hack/requirements.txt
    cp hack/requirements.txt .venv/requirements.txt
fi

node=e2e/clients/node
if ! cmp -s $node/package-lock.json $node/node_modules/.stamp; then
    say "Node packages in $node/node_modules"
    (cd $node && npm ci --silent --prefer-offline --ignore-scripts --no-audit --no-fund)
    cp $node/package-lock.json $node/node_modules/.stamp
fi
