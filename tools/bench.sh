#!/bin/bash
# Measures LiveEdgeCast and its peers side by side on this machine.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat <<'USAGE'
usage: tools/bench.sh [ARGUMENT...]

Installs what is missing, builds everything with optimisations, and runs the benchmark; arguments go to it.
  tools/bench.sh                load: 100 streams through each relay, three times
  tools/bench.sh --cold 200     cold starts
  tools/bench.sh -- --help      all arguments
USAGE
}

case ${1:-} in
  -h | --help) usage; exit 0 ;;
  --) shift ;;
esac

tools/setup.sh bench
cargo build --release --locked --quiet --workspace --bins
exec "${CARGO_TARGET_DIR:-target}/release/bench" "$@"
