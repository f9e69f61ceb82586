#!/bin/bash
# Builds everything in release mode and runs the benchmark; arguments go to it (--help lists them).
# Needs haproxy and nginx with its RTMP module for their rows.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release --locked --quiet --workspace --bins
exec ./target/release/bench "$@"
