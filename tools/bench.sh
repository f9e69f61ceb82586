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
  tools/bench.sh --cluster 25   cold starts on a Kubernetes cluster; needs what tools/test.sh --cluster needs, and removes
                                LiveEdgeCast from it afterwards
  tools/bench.sh -- --help      all arguments
USAGE
}

case ${1:-} in
  -h | --help) usage; exit 0 ;;
  --) shift ;;
esac

tools/setup.sh bench
if [[ ${1:-} == --cluster ]]; then
  # What is measured is in the cluster's image; only the bench itself is built here.
  cargo build --release --locked --quiet -p liveedgecast-e2e --bins
  "${CARGO_TARGET_DIR:-target}/release/bench" "$@" && status=0 || status=$?
  # Only what scenarios made is marked as theirs.
  mark=$(kubectl get namespace liveedgecast -o 'jsonpath={.metadata.annotations.liveedgecast-scenarios}' 2> /dev/null || true)
  [[ -z $mark ]] || tools/down.sh --force > /dev/null || status=1
  exit "$status"
fi
cargo build --release --locked --quiet --workspace --bins
exec "${CARGO_TARGET_DIR:-target}/release/bench" "$@"
