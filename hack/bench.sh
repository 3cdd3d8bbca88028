#!/bin/bash
# All measurements, over a release build.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --locked --release -p commonage -p wordcount
cargo bench --locked --workspace "$@"
