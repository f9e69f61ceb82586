#!/bin/bash
# Brings LiveEdgeCast up on a Kubernetes with KEDA: activators, and a Deployment of workers at zero that KEDA wakes.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)

usage() {
  cat <<'USAGE'
usage: RTMP_PUSH_URL='rtmp://upstream/live/{key}' tools/up.sh [OPTION...]

Applies deploy/ to the cluster of kubectl's context, namespace liveedgecast, and prints the address to publish to once the first
publisher would be served. A second run brings everything up to date and ends no stream; RTMP_PUSH_URL and the key, or the
configuration file, then stay as they are unless they are given again.

  RTMP_PUSH_URL       the upstreams: one or several rtmp:// or rtmps:// URLs. The script asks for them when not set.
  PUBLISH_KEYS        the keys that may publish; the script makes one when not set
  ADMIN_TOKEN         the token for changes by the HTTP API; without it nothing can be changed there
  VIEW_TOKEN          a token for reading alone
  --open              everybody may publish
  --config FILE       a configuration file with publishers and routes, in place of RTMP_PUSH_URL, PUBLISH_KEYS and --open. It becomes a
                      Secret, so it may hold keys. A second run with a changed file reaches live streams within a minute or two.
  --image REF         an image that the cluster has or can pull
  --push REGISTRY     build the image and push it to REGISTRY/liveedgecast
                      (neither: build it and load it into kind, minikube, or the k3s of this machine)
  --overlay NAME      apply deploy/overlays/NAME, not deploy/base: production; edge (one node, such as k3s: publishers connect to
                      the node's own address, and the workers get their sockets)
  --with COMPONENT    also apply deploy/components/COMPONENT: cpu, cron, internal-tls, metrics-api, monitoring, prometheus, rtmps, scaler-tls, thrifty. The
                      option may be repeated. A component that was applied before and is not named now is removed.
  --timeout SECONDS   the limit of each wait (180)
  --take-over         also take back fields that were changed by hand since
  --dry-run           print what would be applied, and do nothing. Where no cluster answers, it is what the first run would apply.

Needs KEDA: tools/install-keda.sh. tools/down.sh removes everything that this script made.
Exit codes: 0 up; 1 not up, a sentence says why; 2 wrong usage, nothing was done.
USAGE
}

namespace=liveedgecast manager=liveedgecast-up
image='' push='' open=no config='' dry_run=no timeout=180 resource=base components=() take_over=(--force-conflicts=false)
say() { printf '%s\n' "$*"; }
fail() { echo "up.sh: $*" >&2; exit 1; }
wrong() { echo "up.sh: $*" >&2; exit 2; }
k() { kubectl --namespace "$namespace" "$@"; }

while [[ $# -gt 0 ]]; do
  case $1 in
    --image) [[ -n ${2:-} ]] || wrong '--image needs a reference, such as registry.example.com/liveedgecast:1'; image=$2; shift ;;
    --push) [[ -n ${2:-} ]] || wrong '--push needs a registry, such as registry.example.com/team'; push=${2%/}; shift ;;
    --open) open=yes ;;
    --config) [[ -f ${2:-} && -r $2 ]] || wrong '--config needs a file that can be read, such as config.yaml'; config=$2; shift ;;
    --overlay)
      [[ ${2:-} =~ ^[a-z-]+$ && -f $here/deploy/overlays/$2/kustomization.yaml ]] ||
        wrong "--overlay needs one of: $(cd "$here/deploy/overlays" && printf '%s\n' * | paste -sd ' ' -)"
      resource=overlays/$2
      shift
      ;;
    --with)
      [[ ${2:-} =~ ^[a-z-]+$ && $2 != open && $2 != config && -d $here/deploy/components/$2 ]] ||
        wrong "--with needs one of: $(cd "$here/deploy/components" && printf '%s\n' * | grep -vxE 'open|config' | paste -sd ' ' -)"
      components+=("$2")
      shift
      ;;
    --timeout) [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || wrong '--timeout needs a number of seconds'; timeout=$2; shift ;;
    --take-over) take_over=(--force-conflicts) ;;
    --dry-run) dry_run=yes ;;
    -h | --help) usage; exit 0 ;;
    *) wrong "unknown argument: $1 (--help lists them)" ;;
  esac
  shift
done
reference=${image:-${push:-any}}
[[ $reference =~ ^[A-Za-z0-9[][][A-Za-z0-9._:/@+-]*$ ]] || wrong "not a reference to an image: $reference"
[[ -z $image || -z $push ]] || wrong '--image and --push exclude each other'
[[ $open == no || -z ${PUBLISH_KEYS:-} ]] || wrong '--open and PUBLISH_KEYS exclude each other'
[[ -z $config || ($open == no && -z ${PUBLISH_KEYS:-} && -z ${RTMP_PUSH_URL:-}) ]] ||
  wrong '--config says where streams go and who may publish: leave out RTMP_PUSH_URL, PUBLISH_KEYS and --open'

# flaw URL: prints the mistake in a push URL, or nothing. The activator checks the URL again, and more closely.
flaw() {
  local url=$1 rest path host='^([^@]*@)?(\[[0-9a-fA-F:.]+\]|[^]@:[]+)(:[0-9]+)?$'
  case $url in
    rtmp://* | rtmps://*) ;;
    *) echo 'begins with neither rtmp:// nor rtmps://'; return ;;
  esac
  rest=${url#*://}
  [[ $rest == */* ]] || { echo 'has no application and key: write rtmp://host/app/{key}'; return; }
  path=${rest#*/}
  [[ ${rest%%/*} =~ $host ]] || { echo 'has no host, or not a good one'; return; }
  [[ $path == *#* || $path == ?*/?* ]] || echo 'has one part only: end it with /{key}'
}
judge_urls() { # judge_urls URLS
  local url why number=0 urls
  read -r -a urls <<< "${1//$'\n'/ }"
  [[ ${#urls[@]} -gt 0 ]] || wrong 'RTMP_PUSH_URL is empty'
  for url in "${urls[@]}"; do
    number=$((number + 1))
    why=$(flaw "$url")
    # The URL itself may hold a stream key.
    [[ -z $why ]] || wrong "RTMP_PUSH_URL, number $number: $why"
  done
}
[[ -z ${RTMP_PUSH_URL:-} ]] || judge_urls "$RTMP_PUSH_URL"
for name in ADMIN_TOKEN VIEW_TOKEN; do
  token=${!name:-}
  # An activator refuses a shorter one at its start.
  [[ -z $token || ${#token} -ge 16 ]] || wrong "$name has ${#token} characters and needs 16: \`openssl rand -hex 32\` makes one"
done

# ---- checks of everything that can be wrong, before anything is applied

command -v kubectl > /dev/null || fail 'kubectl is not there: https://kubernetes.io/docs/tasks/tools/'
context=$(kubectl config current-context 2> /dev/null || echo none)
answers=yes
if ! kubectl version --request-timeout=10s > /dev/null 2>&1; then
  [[ $dry_run == yes ]] || fail "no cluster answers: kubectl's context is '$context'"
  # Nothing is known of it, so nothing of an earlier run and none of the Secrets that people bring are looked for.
  answers=no
  k() { return 1; }
fi
if [[ $answers == yes ]]; then
  kubectl get customresourcedefinition scaledobjects.keda.sh > /dev/null 2>&1 || fail 'KEDA is not there: tools/install-keda.sh installs it'
  keda=$(kubectl get deployment --all-namespaces -l app=keda-operator -o 'jsonpath={.items[*].status.availableReplicas}' 2> /dev/null || true)
  [[ -n ${keda// /} ]] || fail "KEDA's operator is not running: kubectl get pods --all-namespaces -l app=keda-operator"
fi

exists() { k get "$@" > /dev/null 2>&1; }
# The file of an earlier run stays in force until something takes its place.
by_config=no
if [[ -n $config ]] || { [[ $open == no && -z ${PUBLISH_KEYS:-} && -z ${RTMP_PUSH_URL:-} ]] && exists secret liveedgecast-config; }; then
  by_config=yes
fi
if [[ $by_config == no && -z ${RTMP_PUSH_URL:-} ]] && ! exists secret liveedgecast-upstreams; then
  [[ -t 0 ]] || wrong 'RTMP_PUSH_URL is not set: where streams are pushed, such as rtmp://origin.example.com/live/{key}'
  read -r -p 'RTMP_PUSH_URL, where streams are pushed, such as rtmp://origin.example.com/live/{key}: ' RTMP_PUSH_URL
  judge_urls "$RTMP_PUSH_URL"
fi

with() { [[ " ${components[*]-} " == *" $1 "* ]]; }
value() { k get secret "$1" -o "jsonpath={.data.${2/./\\.}}" 2> /dev/null | base64 -d; }
if [[ $answers == yes ]] && with rtmps; then
  for key in tls.crt tls.key; do
    [[ -n $(value liveedgecast-rtmps "$key") ]] || fail "--with rtmps needs the certificate that publishers verify, in the Secret liveedgecast-rtmps: \
kubectl create namespace $namespace; kubectl -n $namespace create secret tls liveedgecast-rtmps --cert=FILE --key=FILE"
  done
fi
if [[ $answers == yes ]] && with internal-tls; then
  for key in tls.crt tls.key ca.crt; do
    [[ -n $(value liveedgecast-internal-tls "$key") ]] || fail "--with internal-tls needs the certificate that activators and workers show each other, and its \
authority, in the Secret liveedgecast-internal-tls (tls.crt, tls.key, ca.crt), as cert-manager makes it"
  done
fi
makes_certificates=no
if with scaler-tls; then
  # The script makes the certificates, unless the Secrets exist and it did not make them.
  brought=()
  for secret in liveedgecast-scaler-tls liveedgecast-keda-tls; do
    if exists secret "$secret" && [[ $(k get secret "$secret" -o 'jsonpath={.metadata.labels.app\.kubernetes\.io/managed-by}') != "$manager" ]]; then
      for key in tls.crt tls.key ca.crt; do
        [[ -n $(value "$secret" "$key") ]] || fail "the Secret $secret, which up.sh did not make, has no $key"
      done
      brought+=("$secret")
    fi
  done
  if [[ ${#brought[@]} == 1 ]]; then
    fail "--with scaler-tls: bring both Secrets, liveedgecast-scaler-tls and liveedgecast-keda-tls, or neither; you have brought ${brought[0]}"
  elif [[ ${#brought[@]} == 0 ]]; then
    command -v openssl > /dev/null || fail 'openssl is not there, which makes the certificates for --with scaler-tls'
    makes_certificates=yes
  fi
fi

# The pod-security level of the namespace. A namespace that the script did not make is not changed, only checked.
namespace_file=$here/deploy/$resource/namespace.yaml
[[ -f $namespace_file ]] || namespace_file=$here/deploy/base/namespace.yaml
level=pod-security.kubernetes.io/enforce
wanted_level=$(sed -n "s|^ *$level: *||p" "$namespace_file")
label() { [[ $answers == no ]] || kubectl get namespace "$namespace" --ignore-not-found -o "jsonpath={.metadata.labels.${1//./\\.}}"; }
made_namespace=no
[[ $(label app.kubernetes.io/managed-by) != "$manager" ]] || made_namespace=yes
if [[ $made_namespace == no && $wanted_level == privileged ]]; then
  had_level=$(label "$level")
  [[ -z $had_level || $had_level == privileged ]] ||
    fail "the namespace $namespace takes no pods on the host's network; allow it: kubectl label namespace $namespace --overwrite $level=$wanted_level"
fi

tag=$(git -C "$here" describe --always --dirty 2> /dev/null || date -u +%Y%m%d%H%M%S)
# With an unchanged name the cluster would go on with the image that it has.
[[ $tag != *-dirty ]] || tag+=-$(date -u +%Y%m%d%H%M%S)
loader=''
if [[ -z $image ]]; then
  if [[ -n $push ]]; then
    image=$push/liveedgecast:$tag
  else
    image=liveedgecast:$tag
    case $context in
      kind-*) loader=kind ;;
      minikube) loader=minikube ;;
      *) if [[ $answers == yes ]] && command -v k3s > /dev/null && kubectl get nodes -o 'jsonpath={.items[*].status.nodeInfo.kubeletVersion}' | grep -q k3s; then loader=k3s; fi ;;
    esac
    [[ -n $loader || $answers == no ]] || fail "the context '$context' is neither kind nor minikube nor this machine's k3s: say --image REF or --push REGISTRY"
    [[ -z $loader || $answers == no ]] || command -v "$loader" > /dev/null || fail "$loader is not there, which loads images into the context '$context'"
  fi
  [[ $answers == no ]] || command -v docker > /dev/null || fail 'docker is not there, which builds the image; or say --image REF'
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# kustomize takes no absolute paths, but enough steps upwards from any folder lead to the root.
deploy=../../../../../../../../../..$here/deploy
# overlay PART RESOURCE: writes a kustomization of one of the two parts (programs, keda) with that part of each component. It labels every
# object as made by this script.
overlay() {
  local part=$1 folder=$scratch/$1 resource=$2 component
  mkdir -p "$folder"
  {
    printf 'resources: [%s/%s]\n' "$deploy" "$resource"
    printf 'components: ['
    for component in ${components[@]+"${components[@]}"}; do
      [[ ! -d $here/deploy/components/$component/$part ]] || printf '%s/components/%s/%s,' "$deploy" "$component" "$part"
    done
    printf ']\n'
    printf 'labels: [{pairs: {app.kubernetes.io/managed-by: %s}}]\n' "$manager"
  } > "$folder/kustomization.yaml"
}
# render: prints the objects of the programs. The namespace is created separately, so that an existing one stays as it is. Workers keep the
# number that KEDA has given them; the zero of the manifest is for the first run.
render() {
  local replicas name=$image version=latest
  replicas=$(k get deployment liveedgecast-worker -o 'jsonpath={.spec.replicas}' 2> /dev/null || true)
  overlay programs "$resource"
  case $image in
    *@*) name=${image%@*} version='' ;;
    *) [[ ${image##*/} != *:* ]] || name=${image%:*} version=${image##*:} ;;
  esac
  {
    if [[ -n $version ]]; then
      printf 'images: [{name: liveedgecast, newName: "%s", newTag: "%s"}]\n' "$name" "$version"
    else
      printf 'images: [{name: liveedgecast, newName: "%s", digest: "%s"}]\n' "$name" "${image#*@}"
    fi
    printf 'replicas: [{name: liveedgecast-worker, count: %s}]\n' "${replicas:-0}"
    # shellcheck disable=SC2016
    printf 'patches: [{target: {kind: Namespace}, patch: "{$patch: delete, apiVersion: v1, kind: Namespace, metadata: {name: any}}"}]\n'
  } >> "$scratch/programs/kustomization.yaml"
  kubectl kustomize "$scratch/programs"
}
[[ $open == no ]] || components+=(open)
[[ $by_config == no ]] || components+=(config)
render > "$scratch/programs.yaml" || fail "deploy/$resource cannot be rendered"
overlay keda keda
kubectl kustomize "$scratch/keda" > "$scratch/keda.yaml" || fail 'deploy/keda cannot be rendered'

if [[ $dry_run == yes ]]; then
  [[ $answers == yes ]] || say '# no cluster answers: this is what the first run would apply'
  say "# to $context: Secrets liveedgecast-control$([[ $by_config == yes ]] && echo ', liveedgecast-config' || echo ', liveedgecast-upstreams')$([[ $open == yes || $by_config == yes ]] || echo ', liveedgecast-keys')$([[ $makes_certificates == no ]] || echo ', liveedgecast-scaler-ca, liveedgecast-scaler-tls, liveedgecast-keda-tls')$([[ -z ${ADMIN_TOKEN:-} ]] || echo ', liveedgecast-admin-token')$([[ -z ${VIEW_TOKEN:-} ]] || echo ', liveedgecast-view-token'); image $image; then"
  cat "$scratch/programs.yaml"
  say '---'
  cat "$scratch/keda.yaml"
  exit 0
fi

# Fields that another field manager has changed since are not taken back. This is checked now, while nothing has been applied. The number of
# workers changes all the time and is no conflict.
if exists deployment liveedgecast-activator; then
  for file in programs keda; do
    if ! kubectl apply --server-side "${take_over[@]}" --field-manager="$manager" --dry-run=server -f "$scratch/$file.yaml" > /dev/null 2> "$scratch/conflicts"; then
      grep -E '^(error|Error|- )' "$scratch/conflicts" >&2 || cat "$scratch/conflicts" >&2
      fail "the cluster does not take this, and nothing was applied; --take-over takes back fields that another field manager has changed"
    fi
  done
fi

# ---- the image

if [[ -n $loader || -n $push ]]; then
  say "building $image"
  docker build ${BUILD_IMAGE:+--build-arg "BUILD_IMAGE=$BUILD_IMAGE"} -t "$image" "$here" || fail 'the image cannot be built'
fi
case $loader in
  kind) kind load docker-image --name "${context#kind-}" "$image" || fail 'kind does not take the image' ;;
  minikube) minikube image load "$image" || fail 'minikube does not take the image' ;;
  k3s) docker save "$image" | k3s ctr images import - || fail 'k3s does not take the image (it needs root)' ;;
  '') if [[ -n $push ]]; then docker push "$image" || fail "$push does not take the image"; fi ;;
esac

# ---- apply

apply() { kubectl apply --server-side "${take_over[@]}" --field-manager="$manager" -o name -f "$1" >> "$scratch/applied"; }
if ! kubectl get namespace "$namespace" > /dev/null 2>&1; then
  kubectl create -f "$namespace_file" > /dev/null
  kubectl label namespace "$namespace" app.kubernetes.io/managed-by="$manager" > /dev/null
elif [[ $made_namespace == yes ]]; then
  kubectl label namespace "$namespace" --overwrite "$level=$wanted_level" > /dev/null
fi
# secret NAME ARGUMENT...: applies a Secret as `kubectl create secret generic` makes it, with this script's labels.
secret() {
  k create secret generic "$@" --dry-run=client -o yaml |
    kubectl label --local -f - app.kubernetes.io/managed-by="$manager" app.kubernetes.io/part-of=liveedgecast -o yaml |
    kubectl apply --server-side --field-manager="$manager" -f - > /dev/null
}
# keep SECRET KEY VALUE: stores the value by way of a file, so that it appears in no list of processes.
keep() {
  (umask 077 && printf '%s' "$3" > "$scratch/value")
  secret "$1" --from-file="$2=$scratch/value"
  rm -f "$scratch/value"
}
random() { od -An -N "$1" -tx1 /dev/urandom | tr -d ' \n'; }
[[ -z ${RTMP_PUSH_URL:-} ]] || keep liveedgecast-upstreams push-url "$RTMP_PUSH_URL"
exists secret liveedgecast-control || keep liveedgecast-control secret "$(random 32)"
[[ -z ${ADMIN_TOKEN:-} ]] || keep liveedgecast-admin-token token "$ADMIN_TOKEN"
[[ -z ${VIEW_TOKEN:-} ]] || keep liveedgecast-view-token token "$VIEW_TOKEN"
[[ -z $config ]] || secret liveedgecast-config --from-file="config.yaml=$config"
if [[ $open == no && $by_config == no ]]; then
  if [[ -n ${PUBLISH_KEYS:-} ]]; then
    keep liveedgecast-keys publish-keys "$PUBLISH_KEYS"
  elif ! exists secret liveedgecast-keys; then
    keep liveedgecast-keys publish-keys "$(random 12)"
  fi
fi

# The authority is valid for twenty years and its certificates for ten, because no program renews them. A run of this script in their last
# ninety days renews them, and both sides load the new ones by themselves.
lasts() { openssl x509 -in "$1" -noout -checkend $((90 * 24 * 3600)) > /dev/null 2>&1; }
new_key=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)
# certificate NAME EXTENSION...: makes a certificate in the Secret liveedgecast-NAME, unless the Secret has a valid one.
certificate() {
  local name=$1 file=$scratch/tls/$1
  shift
  value "liveedgecast-$name" tls.crt > "$file.crt" || true
  ! { lasts "$file.crt" && openssl verify -CAfile "$scratch/tls/ca.crt" "$file.crt"; } > /dev/null 2>&1 || return 0
  printf '%s\n' 'basicConstraints=critical,CA:FALSE' 'keyUsage=critical,digitalSignature' "$@" > "$file.ext"
  {
    openssl req -new "${new_key[@]}" -config "$scratch/tls/config" -subj "/CN=liveedgecast-$name" -keyout "$file.key" -out "$file.csr"
    openssl x509 -req -in "$file.csr" -CA "$scratch/tls/ca.crt" -CAkey "$scratch/tls/ca.key" -set_serial "0x$(random 8)" -days 3650 \
      -extfile "$file.ext" -out "$file.crt"
  } 2> "$file.log" || { cat "$file.log" >&2; fail "openssl makes no certificate"; }
  secret "liveedgecast-$name" --type=kubernetes.io/tls --from-file="tls.crt=$file.crt" --from-file="tls.key=$file.key" \
    --from-file="ca.crt=$scratch/tls/ca.crt"
  say "certificate of the Secret liveedgecast-$name: made"
}
if [[ $makes_certificates == yes ]]; then
  (umask 077 && mkdir "$scratch/tls")
  printf '%s\n' '[req]' 'distinguished_name=dn' 'x509_extensions=ca' '[dn]' \
    '[ca]' 'basicConstraints=critical,CA:TRUE,pathlen:0' 'keyUsage=critical,keyCertSign' 'subjectKeyIdentifier=hash' > "$scratch/tls/config"
  value liveedgecast-scaler-ca tls.crt > "$scratch/tls/ca.crt" || true
  value liveedgecast-scaler-ca tls.key > "$scratch/tls/ca.key" || true
  if ! lasts "$scratch/tls/ca.crt" || [[ ! -s $scratch/tls/ca.key ]]; then
    openssl req -x509 -new "${new_key[@]}" -config "$scratch/tls/config" -subj '/CN=liveedgecast-scaler-ca' -days 7300 \
      -keyout "$scratch/tls/ca.key" -out "$scratch/tls/ca.crt" 2> "$scratch/tls/log" || { cat "$scratch/tls/log" >&2; fail 'openssl makes no authority'; }
    secret liveedgecast-scaler-ca --type=kubernetes.io/tls --from-file="tls.crt=$scratch/tls/ca.crt" --from-file="tls.key=$scratch/tls/ca.key"
  fi
  certificate scaler-tls extendedKeyUsage=serverAuth \
    "subjectAltName=DNS:liveedgecast-scaler.$namespace.svc,DNS:liveedgecast-scaler.$namespace.svc.cluster.local,DNS:liveedgecast-scaler"
  certificate keda-tls extendedKeyUsage=clientAuth subjectAltName=DNS:keda
fi

say 'activators and workers: applying'
generation() { k get deployment liveedgecast-activator -o 'jsonpath={.metadata.generation}' 2> /dev/null || true; }
before=$(generation)
applied=no
for _ in 1 2 3; do
  # KEDA may have changed the number of workers meanwhile, which is a conflict. The next rendering has the new number.
  if apply "$scratch/programs.yaml"; then applied=yes; break; fi
  render > "$scratch/programs.yaml"
done
[[ $applied == yes ]] || fail 'not everything could be applied; see above'
say 'activators: waiting until they are ready'
if ! k rollout status deployment liveedgecast-activator --timeout="${timeout}s" > /dev/null; then
  k get pods -l app.kubernetes.io/name=liveedgecast-activator >&2 || true
  k logs -l app.kubernetes.io/name=liveedgecast-activator --tail=5 >&2 || true
  fail "not ready after $timeout s"
fi
# Nodes learn about a second later that the old activators take no more publishers.
[[ -z $before || $before == "$(generation)" ]] || sleep 2

say 'KEDA: applying'
apply "$scratch/keda.yaml" || fail 'KEDA does not take its object; see above'
# The file of an earlier run is not used any more.
[[ $by_config == yes ]] || k delete secrets -l "app.kubernetes.io/managed-by=$manager" --field-selector metadata.name=liveedgecast-config > /dev/null
# Objects of components or of an overlay of the last run, which this run does not have, are removed now that nothing refers to them.
kinds=services,poddisruptionbudgets,networkpolicies,rolebindings,roles,triggerauthentications.keda.sh
! kubectl get customresourcedefinition servicemonitors.monitoring.coreos.com > /dev/null 2>&1 ||
  kinds+=,servicemonitors.monitoring.coreos.com,podmonitors.monitoring.coreos.com,prometheusrules.monitoring.coreos.com
k get "$kinds" -l "app.kubernetes.io/managed-by=$manager" -o name |
  { grep -vxFf "$scratch/applied" || true; } | while read -r name; do k delete "$name"; done
# KEDA drops a push for a metric that it does not know yet, so the script prints no address before KEDA knows it. It also waits until all
# triggers work: while one of them fails, KEDA breaks off the push at every poll.
condition() { k get scaledobject liveedgecast-worker -o "jsonpath={.status.conditions[?(@.type==\"Ready\")].$1}" 2> /dev/null; }
knows() { [[ $(k get scaledobject liveedgecast-worker -o 'jsonpath={.status.externalMetricNames}' 2> /dev/null) == *s0-* ]]; }
for ((tried = 1; tried <= timeout * 2; tried++)); do
  if knows && [[ $(condition status) == True ]]; then break; fi
  # KEDA asks for names of metrics once. If it could reach no activator at that moment, as on a node that had not learned of the Service yet,
  # it goes on with the other triggers' metrics. A change of the HPA makes KEDA ask again.
  hpa=$(k get scaledobject liveedgecast-worker -o 'jsonpath={.status.hpaName}')
  if ((tried % 10 == 0)) && [[ -n $hpa ]] && ! knows; then
    k annotate horizontalpodautoscaler "$hpa" --overwrite "liveedgecast-up=asked $tried times" > /dev/null 2>&1 || true
  fi
  sleep 0.5
done
if ((tried > timeout * 2)); then
  k get events --field-selector reason=KEDAScalerFailed,involvedObject.name=liveedgecast-worker --sort-by=.lastTimestamp \
    -o 'jsonpath={range .items[*]}{.message}{"\n"}{end}' | tail -n 3 >&2 || true
  if knows; then fail "a trigger does not work, says KEDA after $timeout s: $(condition message)"; fi
  k get scaledobject liveedgecast-worker -o 'jsonpath={range .status.conditions[*]}{.type}={.status}: {.message}{"\n"}{end}' >&2 || true
  fail "KEDA does not know the metric after $timeout s"
fi

# ---- where to publish

# Publishers connect to a Service or, in the overlay edge, to the node's own port.
if ! exists service liveedgecast; then
  # Pods of the last overlay may be on other nodes, so only pods on the host's network count.
  address=$(k get pods -l app.kubernetes.io/name=liveedgecast-activator -o 'jsonpath={.items[?(@.spec.hostNetwork==true)].status.hostIP}')
  address=${address%% *} tries=0
else
  address='' tries=40
fi
ingress() { k get service liveedgecast -o 'jsonpath={.status.loadBalancer.ingress[0].ip}{.status.loadBalancer.ingress[0].hostname}'; }
for ((tried = 0; tried < tries; tried++)); do
  address=$(ingress)
  [[ -z $address ]] || break
  sleep 0.5
done
if [[ -z $address ]]; then
  # The cluster has no load balancer. The node port of a node that has an activator does as well.
  port=$(k get service liveedgecast -o 'jsonpath={.spec.ports[0].nodePort}')
  node=$(k get pods -l app.kubernetes.io/name=liveedgecast-activator -o 'jsonpath={.items[*].status.hostIP}')
  node=${node%% *}
  [[ -z $port || -z $node ]] || address=$node:$port
fi
say
if [[ -n $address ]]; then
  [[ $address != *:*:* ]] || address="[$address]"
  say "publish to    rtmp://$address/live"
else
  say 'publish to    rtmp://127.0.0.1/live while this runs:'
  say "              kubectl -n $namespace port-forward service/liveedgecast 1935"
fi
if [[ $open == yes ]]; then
  say 'with          any key: everybody may publish'
elif [[ $by_config == yes ]]; then
  say 'with          the key of a publisher of the configuration file'
else
  say "with key      $(k get secret liveedgecast-keys -o 'jsonpath={.data.publish-keys}' | base64 -d)"
fi
