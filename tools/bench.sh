#!/bin/bash
# Measures LiveEdgeCast and other relays side by side on this machine.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat <<'USAGE'
usage: tools/bench.sh [ARGUMENT...]

Installs the packages that are missing, builds everything with optimisations, and runs the benchmark. Arguments go to the benchmark.
  tools/bench.sh                load: 100 streams through each relay, three times
  tools/bench.sh --streams 1000 --kbps 32 --fps 5
                                the same with many slow streams
  tools/bench.sh --starts --seconds 20
                                50 starts a second beside 100 live streams
  tools/bench.sh --most         the most streams that one core carries, by relay
  tools/bench.sh --destinations 2 --stall
                                LiveEdgeCast with two sinks, and with one of them stalled
  tools/bench.sh --routes       LiveEdgeCast also with a configuration file
  tools/bench.sh --ours-args '--gather 40ms'
                                LiveEdgeCast also with another setting
  tools/bench.sh --relays link --ours-args '--encryption on'
                                the link without and with encryption, in one run
  tools/bench.sh --visibility --repeat 5
                                400 streams through LiveEdgeCast, without and with three pages open and a scrape every 5 s: see x plain
  tools/bench.sh --charts DIR   50 to 400 streams through each relay, as charts (cpu.svg, p99.svg) and figures.csv; --repeat 5 for
                                a better median
  tools/bench.sh --redraw DIR   the charts again, from figures.csv
  tools/bench.sh --cold 200     cold starts
  tools/bench.sh --cluster 25   cold starts on a Kubernetes cluster; needs the variables of tools/test.sh --cluster, and removes
                                LiveEdgeCast from the cluster afterwards
  tools/bench.sh -- --help      all arguments

The rows: direct (no relay), floor (only receives into shared memory and sends), haproxy (plain TCP), nginx-rtmp (push), and LiveEdgeCast by
descriptor and by link. deploy/docs/measurements.md says how to read the columns.
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
