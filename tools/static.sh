#!/bin/sh
# Runs a command so that cargo, in it, builds static programs, as the image has them.
set -eu

usage() {
  cat <<'USAGE'
usage: tools/static.sh COMMAND [ARGUMENT...]

  tools/static.sh cargo build --release    builds target/ARCHITECTURE-unknown-linux-gnu/release/liveedgecast-…
  tools/static.sh tools/demo.sh            shows those

The Dockerfile and CI build by this. glibc resolves names by files and DNS without any plug-in, so it can be static.
USAGE
}

case ${1:-} in
  -h | --help) usage; exit 0 ;;
  '' | -*) usage >&2; exit 2 ;;
esac

# The target is named, or build scripts and procedural macros would be static too.
CARGO_BUILD_TARGET=$(uname -m)-unknown-linux-gnu
RUSTFLAGS='-C target-feature=+crt-static'
CARGO_PROFILE_RELEASE_STRIP=symbols
export CARGO_BUILD_TARGET RUSTFLAGS CARGO_PROFILE_RELEASE_STRIP
exec "$@"
