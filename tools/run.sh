#!/bin/bash
# Runs LiveEdgeCast on this machine.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)

usage() {
  cat <<'USAGE'
usage: RTMP_PUSH_URL=rtmp://upstream/live/{key} tools/run.sh [ARGUMENT...]

Builds if needed, then runs the activator, which starts workers when a publisher comes and stops them afterwards.
Arguments go to the activator: tools/run.sh -- --help lists them.
USAGE
}

case ${1:-} in
  -h | --help) usage; exit 0 ;;
  --) shift ;;
esac

"$here/tools/setup.sh" run
cargo build --release --locked --quiet --manifest-path "$here/Cargo.toml" \
  -p liveedgecast-activator -p liveedgecast-worker --bins
exec "${CARGO_TARGET_DIR:-$here/target}${CARGO_BUILD_TARGET:+/$CARGO_BUILD_TARGET}/release/liveedgecast-activator" "$@"
