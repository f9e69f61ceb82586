#!/bin/bash
# Runs all tests: units, and scenarios with real programs.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat <<'USAGE'
usage: tools/test.sh [OPTION...] [FILTER...]

Installs the packages that are missing, builds, and runs the tests whose names contain one of FILTER, or all tests.

  --units       only the tests that need no other program (a minute or two, after the build)
  --scenarios   only the tests with ffmpeg, nginx-rtmp, GStreamer and OBS Studio (minutes)
  --cluster     only the tests on a Kubernetes cluster, which no other option runs (a quarter of an hour)
  --release     with optimised binaries
  --no-setup    install nothing
  -h, --help    print this

--cluster needs kubectl and, in the environment:
  KUBECONFIG      a cluster on which the scenarios may install KEDA (if it is missing) and the namespace liveedgecast
  CLUSTER_IMAGE   LiveEdgeCast's image, by a reference that the cluster has or can pull
  CLUSTER_HOST    this machine's address as pods reach it, if that is not the one from which it reaches the nodes
USAGE
}

units=yes scenarios=yes cluster=no setup=yes profile=() filters=()
for argument; do
  case $argument in
    --units) scenarios=no ;;
    --scenarios) units=no ;;
    --cluster) units=no scenarios=no cluster=yes ;;
    --release) profile=(--release) ;;
    --no-setup) setup=no ;;
    -h | --help) usage; exit 0 ;;
    -*) echo "test.sh: unknown option: $argument" >&2; usage >&2; exit 2 ;;
    *) filters+=("$argument") ;;
  esac
done

if [[ $cluster == yes ]]; then
  for needed in KUBECONFIG CLUSTER_IMAGE; do
    [[ -n ${!needed:-} ]] || { echo "test.sh: --cluster needs $needed, see --help" >&2; exit 2; }
  done
  command -v kubectl > /dev/null || { echo 'test.sh: kubectl is not there: https://kubernetes.io/docs/tasks/tools/' >&2; exit 1; }
fi

if [[ $setup == yes ]]; then
  if [[ $cluster == yes ]]; then tools/setup.sh cluster; elif [[ $scenarios == yes ]]; then tools/setup.sh tests; else tools/setup.sh run; fi
fi

if [[ $cluster == yes ]]; then
  # There is one cluster, so the scenarios run one after the other.
  cargo test --locked -p liveedgecast-e2e --test cluster "${profile[@]}" -- --ignored --test-threads 1 --show-output "${filters[@]}" && status=0 || status=$?
  # Only a namespace that the scenarios made has this annotation.
  mark=$(kubectl get namespace liveedgecast -o 'jsonpath={.metadata.annotations.liveedgecast-scenarios}' 2> /dev/null || true)
  [[ -z $mark ]] || tools/down.sh --force > /dev/null || status=1
  exit "$status"
fi

# Scenarios run the programs themselves, which cargo test alone does not build. Those of traces need a feature that is off by default, and a later
# command without it would put programs without it in their place.
features=(--features 'liveedgecast-activator/otlp liveedgecast-worker/otlp')
cargo build --locked --workspace "${features[@]}" "${profile[@]}"
if [[ $units == yes ]]; then
  cargo test --locked --workspace --exclude liveedgecast-e2e "${features[@]}" "${profile[@]}" -- "${filters[@]}"
  cargo test --locked -p liveedgecast-e2e --lib --bins --test structure "${profile[@]}" -- "${filters[@]}"
fi
if [[ $scenarios == yes ]]; then
  # Scenarios mostly wait, for holds, cool-downs and grace times, so more of them run at once than there are cores.
  cargo test --locked -p liveedgecast-e2e --test '*' "${profile[@]}" -- --test-threads "${SCENARIOS_AT_ONCE:-6}" \
    "${filters[@]}"
fi
