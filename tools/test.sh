#!/bin/bash
# Passes all tests: units, and scenarios with real software.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat <<'USAGE'
usage: tools/test.sh [OPTION...] [FILTER...]

Installs what is missing, builds, and runs the tests whose names contain one of FILTER, or all.

  --units       only those that need no other program (seconds)
  --scenarios   only those with ffmpeg, nginx-rtmp, GStreamer and OBS Studio (minutes)
  --release     with optimised binaries
  --no-setup    install nothing
  -h, --help    this
USAGE
}

units=yes scenarios=yes setup=yes profile=() filters=()
for argument; do
  case $argument in
    --units) scenarios=no ;;
    --scenarios) units=no ;;
    --release) profile=(--release) ;;
    --no-setup) setup=no ;;
    -h | --help) usage; exit 0 ;;
    -*) echo "test.sh: unknown option: $argument" >&2; usage >&2; exit 2 ;;
    *) filters+=("$argument") ;;
  esac
done

if [[ $setup == yes ]]; then
  if [[ $scenarios == yes ]]; then tools/setup.sh tests; else tools/setup.sh run; fi
fi

# Scenarios run the real binaries, which cargo test alone does not build.
cargo build --locked --workspace "${profile[@]}"
if [[ $units == yes ]]; then
  cargo test --locked --workspace --exclude liveedgecast-e2e "${profile[@]}" -- "${filters[@]}"
  cargo test --locked -p liveedgecast-e2e --lib --bins "${profile[@]}" -- "${filters[@]}"
fi
if [[ $scenarios == yes ]]; then
  # They mostly wait: for holds, cool-downs, grace times. More of them at once than cores is right.
  cargo test --locked -p liveedgecast-e2e --test '*' "${profile[@]}" -- --test-threads "${SCENARIOS_AT_ONCE:-6}" \
    "${filters[@]}"
fi
