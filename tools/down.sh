#!/bin/bash
# Removes the objects that up.sh made, and no others.
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: tools/down.sh [--force] [--timeout SECONDS] [--dry-run]

Removes the objects that tools/up.sh made from the cluster of kubectl's context, and prints each. KEDA stays, and so do a namespace
that existed before and all other objects in it. While a stream is live, the script names the streams and removes nothing.

  --force             remove also while a stream is live, or when activators cannot be asked: live streams are cut
  --timeout SECONDS   the limit of each wait (120)
  --dry-run           print what would be removed

Exit codes: 0 removed, or nothing to remove; 1 not removed, a sentence says why; 2 wrong usage.
USAGE
}

namespace=liveedgecast manager=liveedgecast-up
force=no dry_run=no timeout=120
say() { printf '%s\n' "$*"; }
fail() { echo "down.sh: $*" >&2; exit 1; }
wrong() { echo "down.sh: $*" >&2; exit 2; }
k() { kubectl --namespace "$namespace" "$@"; }

while [[ $# -gt 0 ]]; do
  case $1 in
    --force) force=yes ;;
    --timeout) [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || wrong '--timeout needs a number of seconds'; timeout=$2; shift ;;
    --dry-run) dry_run=yes ;;
    -h | --help) usage; exit 0 ;;
    *) wrong "unknown argument: $1 (--help lists them)" ;;
  esac
  shift
done

command -v kubectl > /dev/null || fail 'kubectl is not there: https://kubernetes.io/docs/tasks/tools/'
kubectl version --request-timeout=10s > /dev/null 2>&1 ||
  fail "no cluster answers: kubectl's context is '$(kubectl config current-context 2> /dev/null || echo none)'"

ours=app.kubernetes.io/managed-by=$manager
# names KINDS: the objects of these kinds that up.sh made, as kind/name.
names() { k get "$1" -l "$ours" -o name; }
kinds=deployments,services,networkpolicies,poddisruptionbudgets,rolebindings,roles,serviceaccounts,secrets
scaled=''
if kubectl get customresourcedefinition scaledobjects.keda.sh triggerauthentications.keda.sh > /dev/null 2>&1; then
  scaled=$(names scaledobjects.keda.sh)
  kinds+=,triggerauthentications.keda.sh
fi
! kubectl get customresourcedefinition servicemonitors.monitoring.coreos.com > /dev/null 2>&1 ||
  kinds+=,servicemonitors.monitoring.coreos.com,podmonitors.monitoring.coreos.com,prometheusrules.monitoring.coreos.com
rest=$(names "$kinds")
made_namespace=$(kubectl get namespace -l "$ours" -o name)
if [[ -z $scaled$rest$made_namespace ]]; then
  say 'there are no objects of up.sh'
  exit 0
fi

# ---- is a stream live?

live=0 unheard=''
for pod in $(k get pods -l app.kubernetes.io/name=liveedgecast-activator --field-selector status.phase=Running \
  -o 'jsonpath={.items[*].metadata.name}'); do
  # Each activator tells the demand of all of them.
  if demand=$(k get --raw "/api/v1/namespaces/$namespace/pods/$pod:8080/proxy/api/v1/demand" --request-timeout=5s 2> /dev/null) &&
    [[ $demand =~ \"demand\":([0-9]+) ]]; then
    ((BASH_REMATCH[1] <= live)) || live=${BASH_REMATCH[1]}
  else
    unheard+=" $pod"
  fi
done
if [[ $force == no ]]; then
  case $live in
    0) ;;
    1) fail '1 stream waits or is live; --force removes everything all the same' ;;
    *) fail "$live streams wait or are live; --force removes everything all the same" ;;
  esac
  [[ -z $unheard ]] || fail "these activators do not say whether streams are live:$unheard; --force removes everything all the same"
fi

if [[ $dry_run == yes ]]; then
  say 'would remove:'
  for name in $scaled $rest $made_namespace; do say "  $name"; done
  exit 0
fi

# ---- the ScaledObject first, or KEDA would wake workers again

if [[ -n $scaled ]]; then
  # shellcheck disable=SC2086
  k delete $scaled --wait=false
  for ((tried = 0; tried < timeout * 2; tried++)); do
    scaled=$(names scaledobjects.keda.sh)
    [[ -n $scaled ]] || break
    sleep 0.5
  done
  [[ -z $scaled ]] || fail "KEDA does not release $scaled. If KEDA is not installed any more, remove its finalizer and run this again:
  kubectl -n $namespace patch $scaled --type=merge -p '{\"metadata\":{\"finalizers\":null}}'"
fi

# gone DEPLOYMENT: removes the Deployment and waits until its pods have ended.
gone() {
  [[ $rest == *"deployment.apps/$1"* ]] || return 0
  if [[ $force == yes ]]; then
    # The pods are deleted with the shorter time before their Deployment is: a pod that is being deleted keeps the time that it was given first.
    k delete deployment "$1" --cascade=orphan
    k delete replicasets -l "app.kubernetes.io/name=$1" --cascade=orphan > /dev/null
    k delete pods -l "app.kubernetes.io/name=$1" --grace-period=5 --wait=false > /dev/null
  else
    k delete deployment "$1" --wait=false
  fi
  k wait --for=delete pods -l "app.kubernetes.io/name=$1" --timeout="${timeout}s" > /dev/null 2>&1 ||
    fail "pods of $1 are still there after $timeout s: kubectl -n $namespace get pods"
}
gone liveedgecast-worker
gone liveedgecast-activator
rest=$(names "$kinds")
if [[ -n $rest ]]; then
  # shellcheck disable=SC2086
  k delete $rest
fi

if [[ -n $made_namespace ]]; then
  others=$(k get deployments,statefulsets,daemonsets,jobs,cronjobs,pods,services,ingresses,persistentvolumeclaims,secrets,configmaps,serviceaccounts,roles,rolebindings -o name |
    grep -vxE 'configmap/kube-root-ca.crt|serviceaccount/default' || true)
  if [[ -z $others ]]; then
    kubectl delete namespace "$namespace" --timeout="${timeout}s" || fail "the namespace is still there after $timeout s"
  else
    say "namespace/$namespace stays, because other objects are in it: $(tr '\n' ' ' <<< "$others")"
  fi
fi
