#!/bin/bash
# Installs KEDA, which wakes LiveEdgeCast's workers on Kubernetes.
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: tools/install-keda.sh [--version VERSION] [--timeout SECONDS] [--dry-run]

Installs KEDA (2.21.0) into the namespace keda of the cluster of kubectl's context, and waits until KEDA is ready. A second run changes
nothing; another version replaces the installed one. The script also says whether metrics-server is installed, which CPU and
memory triggers need.

  --version VERSION    install this version
  --timeout SECONDS    the limit of each wait (180)
  --dry-run            print what would be applied
  KEDA_MANIFEST=FILE   install this file, such as keda-2.21.0.yaml of KEDA's releases, instead of fetching it

Exit codes: 0 ready; 1 not ready, or nothing was done; 2 wrong usage.
USAGE
}

# The newest version that LiveEdgeCast was tried with.
version=2.21.0 version_given=no timeout=180 dry_run=no
say() { printf '%s\n' "$*"; }
fail() { echo "install-keda.sh: $*" >&2; exit 1; }
wrong() { echo "install-keda.sh: $*" >&2; usage >&2; exit 2; }

while [[ $# -gt 0 ]]; do
  case $1 in
    --version) [[ -n ${2:-} ]] || wrong '--version needs one, such as 2.21.0'; version=${2#v} version_given=yes; shift ;;
    --timeout) [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || wrong '--timeout needs a number of seconds'; timeout=$2; shift ;;
    --dry-run) dry_run=yes ;;
    -h | --help) usage; exit 0 ;;
    *) wrong "unknown argument: $1" ;;
  esac
  shift
done
[[ $version =~ ^[0-9]+\.[0-9]+\.[0-9]+$ ]] || wrong "not a version: $version"

command -v kubectl > /dev/null || fail 'kubectl is not there: https://kubernetes.io/docs/tasks/tools/'
kubectl version --request-timeout=10s > /dev/null 2>&1 ||
  fail "no cluster answers: kubectl's context is '$(kubectl config current-context 2> /dev/null || echo none)'"

manifest=''
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
if [[ -n ${KEDA_MANIFEST:-} ]]; then
  [[ -r $KEDA_MANIFEST ]] || fail "KEDA_MANIFEST cannot be read: $KEDA_MANIFEST"
  manifest=$KEDA_MANIFEST
else
  url=https://github.com/kedacore/keda/releases/download/v$version/keda-$version.yaml
  command -v curl > /dev/null || fail 'curl is not there; install it, or fetch the manifest yourself and set KEDA_MANIFEST'
  curl -fsSL --retry 2 --max-time 120 -o "$scratch/keda.yaml" "$url" ||
    fail "cannot fetch $url; where the internet cannot be reached, bring the file and set KEDA_MANIFEST"
  manifest=$scratch/keda.yaml
fi

# The manifest is applied with all rights of the user, so it is checked to be KEDA's.
for needed in '^  name: scaledobjects\.keda\.sh$' '^  name: keda-operator$' '^ +(- )?image: .*/keda:'; do
  grep -Eq "$needed" "$manifest" ||
    fail "not a manifest of KEDA (no ScaledObject definition, or no operator): ${KEDA_MANIFEST:-$url}"
done
found=$(sed -En 's#^ *(- )?image: .*/keda:v?([0-9][^ @"]*).*#\2#p' "$manifest" | head -n 1)
[[ $version_given == no || $found == "$version" ]] || fail "$manifest has KEDA $found, not $version"

elsewhere=$(kubectl get deployments --all-namespaces -l app=keda-operator -o 'jsonpath={.items[*].metadata.namespace}')
[[ -z $elsewhere || $elsewhere == keda ]] || fail "KEDA is installed in the namespace $elsewhere already; there can be only one: use that one"
if [[ $elsewhere == keda ]]; then
  manager=$(kubectl -n keda get deployment keda-operator -o 'jsonpath={.metadata.labels.app\.kubernetes\.io/managed-by}')
  [[ $manager != Helm ]] || fail 'KEDA is installed by Helm already: use it, or change its version with helm'
fi

if [[ $dry_run == yes ]]; then
  say "would apply KEDA $found ($(grep -c '^kind:' "$manifest") objects) to $(kubectl config current-context)"
  exit 0
fi
say "KEDA $found: applying"
kubectl apply --server-side --force-conflicts --field-manager=install-keda -f "$manifest" > "$scratch/applied" || fail 'not every object was applied; see above'
say "KEDA $found: waiting until it is ready"
if ! kubectl -n keda wait --for=condition=Available deployment --all --timeout="${timeout}s" > /dev/null; then
  kubectl -n keda get pods >&2 || true
  fail "not ready after $timeout s"
fi
kubectl wait --for=condition=Available apiservice v1beta1.external.metrics.k8s.io --timeout="${timeout}s" > /dev/null ||
  fail 'its metrics API does not become available: kubectl describe apiservice v1beta1.external.metrics.k8s.io'
say "KEDA $found: ready"

available=$(kubectl get apiservice v1beta1.metrics.k8s.io -o 'jsonpath={.status.conditions[?(@.type=="Available")].status}' 2> /dev/null || true)
if [[ $available == True ]]; then
  say 'metrics-server: installed; CPU and memory triggers work'
else
  say 'metrics-server: not installed; everything but CPU and memory triggers works'
fi
