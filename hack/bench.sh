#!/bin/bash
# All measurements, over a release build: `hack/bench.sh [system|cycle|…]`.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --locked --release -p commonage
cargo build --locked --release -p commonage-apiserver --example load
case "${1:-all}" in
    all) cargo bench --locked -p commonage-allocator
         CMN="$PWD/target/release/cmn" cargo bench --locked -p commonage-e2e ;;
    cycle) cargo bench --locked -p commonage-allocator ;;
    *) CMN="$PWD/target/release/cmn" cargo bench --locked -p commonage-e2e -- "${1#system}" ;;
esac
