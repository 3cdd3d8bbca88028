#!/bin/bash
# All measurements, over a release build. Picked by name: `make bench ROWS=create,watch`, or
# `hack/bench.sh ROW,…`. Rows of the API server alone: create create-one get patch list watch-100
# watch-1000 both agents memory restart, each of either store (`etcd/create`) or of both; of the
# whole system: start tasks thousand leader (CMN_BENCH_AGENTS=10000); of the allocator: cycle; of images: image; of the shim alone:
# launch, beside runc or whatever BENCH_RUNTIME names, if it is there. No name is all.
#
# BENCH_KUBECONFIG=FILE measures another Kubernetes API server in place of ours; BENCH_PIDS=PID,…
# names its processes, if they are on this machine.
set -euo pipefail
cd "$(dirname "$0")/.."
rows=${1:-}
asked() { [ -z "$rows" ] || [[ ",$rows," == *",$1,"* ]]; }
rest=$(tr ',' '\n' <<<"$rows" | { grep -vxE 'start|tasks|thousand|leader|cycle|image|launch|' || true; } | paste -sd,)

cargo build --locked --release -p commonage-apiserver --example api_bench
if [ -z "${BENCH_KUBECONFIG:-}" ]; then
    cargo build --locked --release -p commonage
    export CMN="$PWD/target/release/cmn"
fi
mkdir -p target/bench
if [ -z "$rows" ] || [ -n "$rest" ]; then
    BENCH_JSON=target/bench/api.json target/release/examples/api_bench "$rest"
fi
[ -z "${BENCH_KUBECONFIG:-}" ] || exit 0
parts=()
for part in start tasks thousand leader; do if asked $part; then parts+=($part); fi; done
case ${#parts[@]} in
    0) ;;
    4) cargo bench --locked -p commonage-e2e ;;
    *) for part in "${parts[@]}"; do cargo bench --locked -p commonage-e2e -- "$part"; done ;;
esac
if asked cycle; then cargo bench --locked -p commonage-allocator; fi
if asked image; then cargo run --locked --release -p commonage-image --example pull; fi
if asked launch; then
    runtime=${BENCH_RUNTIME:-runc}
    command -v "$runtime" >/dev/null || runtime=
    cargo run --locked --release -p commonage-shim --example launch_latency 200 $runtime
fi
