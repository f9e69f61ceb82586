#!/bin/sh
# Runs a command in which cargo builds static programs, as they are in the image.
set -eu

usage() {
  cat <<'USAGE'
usage: tools/static.sh COMMAND [ARGUMENT...]

  tools/static.sh cargo build --release    builds target/ARCHITECTURE-unknown-linux-gnu/release/liveedgecast-…
  tools/static.sh tools/demo.sh            runs the demo with them

The Dockerfile and CI build with this script. glibc resolves names by files and DNS without a plug-in, so it can be linked statically.
The programs have their symbols, by which tools/cost.sh finds functions; with CARGO_PROFILE_RELEASE_STRIP=symbols, as in the Dockerfile, they
have none. They name the commit that they were built from, BUILD_COMMIT or that of the working copy.
USAGE
}

case ${1:-} in
  -h | --help) usage; exit 0 ;;
  '' | -*) usage >&2; exit 2 ;;
esac

# With a named target, build scripts and procedural macros are not linked statically, only the programs.
CARGO_BUILD_TARGET=$(uname -m)-unknown-linux-gnu
RUSTFLAGS='-C target-feature=+crt-static'
CARGO_PROFILE_RELEASE_STRIP=${CARGO_PROFILE_RELEASE_STRIP:-debuginfo}
BUILD_COMMIT=${BUILD_COMMIT:-$(git rev-parse --short=12 HEAD 2> /dev/null || echo unknown)}
export BUILD_COMMIT CARGO_BUILD_TARGET RUSTFLAGS CARGO_PROFILE_RELEASE_STRIP
exec "$@"
