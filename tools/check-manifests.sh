#!/bin/bash
# Checks the manifests of deploy/ against the schemas of Kubernetes, KEDA, cert-manager and the Prometheus Operator, or asks a cluster.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat <<'USAGE'
usage: tools/check-manifests.sh [--cluster]

Renders deploy/, each component by itself and all together, and checks every object against deploy/schemas, strictly: a field that
does not exist is an error. The certificates in the guide (deploy/docs/kubernetes.md) are checked, too. deploy/schemas/make.py renews the schemas. Needs the programs that `tools/setup.sh checks` installs.

  --cluster   ask the cluster of kubectl's context instead, its API server and KEDA's webhook, without changing it. LiveEdgeCast
              must be up there, because KEDA looks at the Deployment that it would scale.
USAGE
}

cluster=no
case ${1:-} in
  '') ;;
  --cluster) cluster=yes ;;
  -h | --help) usage; exit 0 ;;
  *) usage >&2; exit 2 ;;
esac

fail() { echo "check-manifests.sh: $*" >&2; exit 1; }
PATH=$PATH:$PWD/.tools
if command -v kubectl > /dev/null; then
  render() { kubectl kustomize "$1"; }
else
  command -v kustomize > /dev/null || fail 'neither kubectl nor kustomize is there: tools/setup.sh checks'
  render() { kustomize build "$1"; }
fi
if [[ $cluster == yes ]]; then
  command -v kubectl > /dev/null || fail 'kubectl is not there: https://kubernetes.io/docs/tasks/tools/'
  kubectl -n liveedgecast get deployment liveedgecast-worker > /dev/null || fail 'LiveEdgeCast is not up on the cluster: tools/up.sh'
else
  command -v kubeconform > /dev/null || fail 'kubeconform is not there: tools/setup.sh checks'
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# kustomize takes no absolute paths, but enough steps upwards from any folder lead to the root.
deploy=../../../../../../../../../..$PWD/deploy
conforms() { # conforms FILE: prints how many objects are valid
  if [[ $cluster == yes ]]; then
    # The field manager is that of up.sh, so that a probe of another kind replaces the existing one. Under another manager it would be added.
    kubectl apply --server-side --force-conflicts --field-manager=liveedgecast-up --dry-run=server -o name -f "$1" > "$scratch/taken" &&
      echo "Taken: $(wc -l < "$scratch/taken")"
  else
    kubeconform -strict -summary -schema-location 'deploy/schemas/{{.ResourceKind}}{{.KindSuffix}}.json' "$1"
  fi
}
check() { # check NAME RESOURCE [COMPONENT/PART...]
  local name=$1 resource=$2 part
  shift 2
  mkdir -p "$scratch/$name"
  {
    printf 'resources: [%s/%s]\ncomponents: [' "$deploy" "$resource"
    for part; do printf '%s/components/%s,' "$deploy" "$part"; done
    printf ']\n'
  } > "$scratch/$name/kustomization.yaml"
  render "$scratch/$name" > "$scratch/$name.yaml"
  printf '%-24s ' "$name"
  conforms "$scratch/$name.yaml"
  # kustomize gives an object that a component brings no namespace of the base.
  awk -v name="$name" '
    function judge() { if (kind && kind != "Namespace" && !placed) { print name ": without a namespace: " kind; wrong = 1 } kind = ""; placed = 0 }
    /^---/ { judge() } /^kind: / { kind = $2 } /^  namespace: liveedgecast$/ { placed = 1 } END { judge(); exit wrong }' "$scratch/$name.yaml" >&2
}
check base base
check keda keda
# The kinds of the component monitoring are there only if the Prometheus Operator is.
operator=yes
[[ $cluster == no ]] || kubectl get crd servicemonitors.monitoring.coreos.com > /dev/null 2>&1 || operator=no
# Each component by itself, then all of them together, on the base and on each overlay.
programs=() keda=()
for path in deploy/components/*/*/; do
  part=${path#deploy/components/} part=${part%/}
  if [[ $part == monitoring/* && $operator == no ]]; then
    echo 'The cluster has no Prometheus Operator: the component monitoring is not checked'
    continue
  fi
  case $part in
    */programs) check "base-${part%/*}" base "$part"; programs+=("$part") ;;
    */keda) check "keda-${part%/*}" keda "$part"; keda+=("$part") ;;
    *) fail "a component has the parts programs and keda: $path" ;;
  esac
done
check base-all base "${programs[@]}"
check keda-all keda "${keda[@]}"
for path in deploy/overlays/*/; do
  overlay=$(basename "$path")
  check "$overlay" "overlays/$overlay"
  check "$overlay-all" "overlays/$overlay" "${programs[@]}"
done

# The certificates that the guide proposes. A cluster without cert-manager does not know them.
if [[ $cluster == no ]]; then
  awk '/^```/ { inside = /^```yaml/; next } inside' deploy/docs/kubernetes.md > "$scratch/certificates.yaml"
  grep -q '^kind: Certificate' "$scratch/certificates.yaml" || fail 'the guide has no certificates'
  printf '%-24s ' certificates
  conforms "$scratch/certificates.yaml"
fi

# The check itself is checked: each of these mistakes must be found.
{ cat "$scratch/base.yaml"; echo ---; cat "$scratch/keda.yaml"; } > "$scratch/right.yaml"
[[ $operator == no ]] || { echo ---; cat "$scratch/base-monitoring.yaml"; } >> "$scratch/right.yaml"
[[ $cluster == yes ]] || { echo ---; cat "$scratch/certificates.yaml"; } >> "$scratch/right.yaml"
conforms "$scratch/right.yaml" > /dev/null
mistakes=('s/terminationGracePeriodSeconds/terminationGraceSeconds/' 's/containerPort: 1935/containerPort: rtmp/' 's/pollingInterval/pollInterval/')
[[ $operator == no ]] || mistakes+=('s/podMetricsEndpoints/podMetricEndpoints/' 's/interval: 15s/interval: often/' 's/ alert: / alarm: /')
if [[ $cluster == yes ]]; then
  # Only KEDA's webhook finds this mistake; no schema does.
  mistakes+=('s/idleReplicaCount: 0/idleReplicaCount: 1/')
else
  mistakes+=('s/renewBefore/renewsBefore/')
fi
for mistake in "${mistakes[@]}"; do
  sed "$mistake" "$scratch/right.yaml" > "$scratch/wrong.yaml"
  ! conforms "$scratch/wrong.yaml" > /dev/null 2>&1 || fail "a mistake goes through: $mistake"
done
# Every file has one object, and a kustomization uses every file.
for folder in deploy/base deploy/keda deploy/overlays/* deploy/components/*/*; do
  while IFS= read -r file; do
    [[ $(grep -c '^kind:' "$file") == 1 ]] || fail "not one object: $file"
    grep -q "${file#"$folder"/}" "$folder/kustomization.yaml" || fail "not used: $file"
  done < <(find "$folder" -name '*.yaml' ! -name kustomization.yaml)
done
