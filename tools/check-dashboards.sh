#!/bin/bash
# Checks the dashboards of deploy/observability against Grafana's own schema.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat <<'USAGE'
usage: tools/check-dashboards.sh

Reads every dashboard with the types that Grafana's authors generate from its schema, strictly: a field that does not exist is an error, and so is
one that is missing. Needs the program that `tools/setup.sh checks` builds from deploy/observability/check-dashboards.
USAGE
}

case ${1:-} in
  '') ;;
  -h | --help) usage; exit 0 ;;
  *) usage >&2; exit 2 ;;
esac

fail() { echo "check-dashboards.sh: $*" >&2; exit 1; }
PATH=$PATH:$PWD/.tools
command -v check-dashboards > /dev/null || fail 'check-dashboards is not there: tools/setup.sh checks'
dashboards=(deploy/observability/dashboards/*.json)
check-dashboards "${dashboards[@]}"

# The check itself is checked: each of these mistakes must be found.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
for mistake in 's/"targets"/"queries"/' 's/"lineWidth": 1/"lineWidth": "thin"/' 's/"legendFormat"/"legendFormats"/'; do
  sed "$mistake" "${dashboards[0]}" > "$scratch/wrong.json"
  ! cmp -s "${dashboards[0]}" "$scratch/wrong.json" || fail "a mistake that changes nothing: $mistake"
  ! check-dashboards "$scratch/wrong.json" > /dev/null 2>&1 || fail "a mistake goes through: $mistake"
done
