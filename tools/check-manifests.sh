#!/bin/bash
# Checks deploy/ against the schemas of Kubernetes and KEDA, without a cluster.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat <<'USAGE'
usage: tools/check-manifests.sh

Renders deploy/ with kubectl and checks every object against deploy/schemas, strictly: a field that does not exist is an error.
Needs kubectl 1.21 or newer; kubeconform is built by go into .tools/ if it is not there. deploy/schemas/make.py renews the schemas.
USAGE
}

case ${1:-} in
  '') ;;
  -h | --help) usage; exit 0 ;;
  *) usage >&2; exit 2 ;;
esac

kubeconform_version=v0.7.0
if ! kubeconform=$(command -v kubeconform); then
  kubeconform=$PWD/.tools/kubeconform
  if [[ ! -x $kubeconform ]]; then
    command -v go > /dev/null || { echo 'check-manifests.sh: neither kubeconform nor go is there' >&2; exit 1; }
    GOBIN=$PWD/.tools go install "github.com/yannh/kubeconform/cmd/kubeconform@$kubeconform_version"
  fi
fi
command -v kubectl > /dev/null || { echo 'check-manifests.sh: kubectl is not there' >&2; exit 1; }

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# kustomize takes no absolute paths; above the root there is the root.
deploy=../../../../../../../../../..$PWD/deploy
conforms() { # conforms FILE
  "$kubeconform" -strict -summary -schema-location 'deploy/schemas/{{.ResourceKind}}{{.KindSuffix}}.json' "$1"
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
  kubectl kustomize "$scratch/$name" > "$scratch/$name.yaml"
  printf '%-24s ' "$name"
  conforms "$scratch/$name.yaml"
  # An object that a component brings gets no namespace from the base.
  awk -v name="$name" '
    function judge() { if (kind && kind != "Namespace" && !placed) { print name ": without a namespace: " kind; wrong = 1 } kind = ""; placed = 0 }
    /^---/ { judge() } /^kind: / { kind = $2 } /^  namespace: liveedgecast$/ { placed = 1 } END { judge(); exit wrong }' "$scratch/$name.yaml" >&2
}
check base base
check keda keda
# Each component by itself, then all of them, with each base that programs can have.
programs=() keda=()
for path in deploy/components/*/*/; do
  part=${path#deploy/components/} part=${part%/}
  case $part in
    */programs) check "base-${part%/*}" base "$part"; programs+=("$part") ;;
    */keda) check "keda-${part%/*}" keda "$part"; keda+=("$part") ;;
    *) echo "check-manifests.sh: a component has the parts programs and keda: $path" >&2; exit 1 ;;
  esac
done
check base-all base "${programs[@]}"
check keda-all keda "${keda[@]}"
for path in deploy/overlays/*/; do
  overlay=$(basename "$path")
  check "$overlay" "overlays/$overlay"
  check "$overlay-all" "overlays/$overlay" "${programs[@]}"
done

# A check that lets everything pass is none.
{ cat "$scratch/base.yaml"; echo ---; cat "$scratch/keda.yaml"; } > "$scratch/right.yaml"
conforms "$scratch/right.yaml" > /dev/null
for mistake in 's/terminationGracePeriodSeconds/terminationGraceSeconds/' 's/containerPort: 1935/containerPort: rtmp/' 's/pollingInterval/pollInterval/'; do
  sed "$mistake" "$scratch/right.yaml" > "$scratch/wrong.yaml"
  if conforms "$scratch/wrong.yaml" > /dev/null; then
    echo "check-manifests.sh: a mistake goes through: $mistake" >&2
    exit 1
  fi
done
# Every object is in the file that says its name, and every file is used.
for folder in deploy/base deploy/keda deploy/overlays/* deploy/components/*/*; do
  while IFS= read -r file; do
    [[ $(grep -c '^kind:' "$file") == 1 ]] || { echo "check-manifests.sh: not one object: $file" >&2; exit 1; }
    grep -q "${file#"$folder"/}" "$folder/kustomization.yaml" || { echo "check-manifests.sh: not used: $file" >&2; exit 1; }
  done < <(find "$folder" -name '*.yaml' ! -name kustomization.yaml)
done
