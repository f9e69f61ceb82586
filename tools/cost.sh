#!/bin/bash
# Counts what a message costs, and compares it with the bounds in e2e/cost.txt.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat <<'USAGE'
usage: tools/cost.sh [ARGUMENT...]

Installs valgrind and strace if they are missing, builds, and counts the instructions, allocations and system calls that a message costs in
each process, by each handoff. Nothing is timed. It fails if a figure is above its bound in e2e/cost.txt, or so far below it that the bound
holds nothing any more. Arguments go to the counting program.
  tools/cost.sh                    counts and compares
  UPDATE_COST=1 tools/cost.sh      counts and writes e2e/cost.txt again, with bounds some 5 % above the figures
  tools/cost.sh --functions 30     also prints the functions with the most instructions of their own
  tools/cost.sh --handoffs link    counts one handoff, and compares nothing
  tools/cost.sh -- --help          all arguments

It counts in the static programs, as the image has them, so that neither the C library nor the dynamic linker of the machine is in the figures.
The bounds are those of x86-64. On another processor it only prints.
USAGE
}

case ${1:-} in
  -h | --help) usage; exit 0 ;;
  --) shift ;;
esac

tools/setup.sh run cost
tools/static.sh cargo build --release --locked --quiet -p liveedgecast-activator -p liveedgecast-worker --bins
target=${CARGO_TARGET_DIR:-target}
programs=$(realpath "$target/$(uname -m)-unknown-linux-gnu/release")
# The whole workspace decides about the features of its dependencies, so that the tests' build finds them made.
cargo build --locked --quiet --workspace --bin cost --bin orphans
compare=()
[[ $(uname -m) == x86_64 ]] || compare=(--no-bounds)
LIVEEDGECAST_BIN_DIR=$programs exec "$target/debug/cost" "${compare[@]}" "$@"
