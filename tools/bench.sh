#!/bin/bash
# Measures LiveEdgeCast and other relays side by side on this machine.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat <<'USAGE'
usage: tools/bench.sh [ARGUMENT...]

Installs the packages that are missing, builds everything with optimisations, and runs the benchmark. Arguments go to the benchmark.
  tools/bench.sh                load: 100 streams through each relay, three times
  tools/bench.sh --cold 200     cold starts
  tools/bench.sh --cluster 25   cold starts on a Kubernetes cluster; needs the variables of tools/test.sh --cluster, and removes
                                LiveEdgeCast from the cluster afterwards
  tools/bench.sh -- --help      all arguments
USAGE
}

case ${1:-} in
  -h | --help) usage; exit 0 ;;
  --) shift ;;
esac

tools/setup.sh bench
if [[ ${1:-} == --cluster ]]; then
  # The measured programs are in the cluster's image; only the benchmark itself is built here.
  cargo build --release --locked --quiet -p liveedgecast-e2e --bins
  "${CARGO_TARGET_DIR:-target}/release/bench" "$@" && status=0 || status=$?
  # Only a namespace that the benchmark made has this annotation.
  mark=$(kubectl get namespace liveedgecast -o 'jsonpath={.metadata.annotations.liveedgecast-scenarios}' 2> /dev/null || true)
  [[ -z $mark ]] || tools/down.sh --force > /dev/null || status=1
  exit "$status"
fi
cargo build --release --locked --quiet --workspace --bins
exec "${CARGO_TARGET_DIR:-target}/release/bench" "$@"
