#!/usr/bin/env bash
# Makes the environment in $1 from the lock files. Safe to run again: what is there already is kept.
#
# torch comes through pip, everything else through uv. pip reads its own configuration, so where a CPU build of
# torch is offered (a local wheel, PIP_EXTRA_INDEX_URL) pip prefers it; from the public index alone the CUDA build comes.
set -euo pipefail
venv=$1
here=$(dirname "$0")
uv_version=0.13.9
export UV_HTTP_TIMEOUT=${UV_HTTP_TIMEOUT:-300} PIP_DISABLE_PIP_VERSION_CHECK=1

say() { printf 'install: %s\n' "$*"; }

retry() { # the large wheels are hundreds of megabytes: a broken connection is not the end
  local try
  for try in 1 2 3; do
    "$@" && return 0
    say "attempt $try failed: $1 $2 $3"
    sleep $((try * 5))
  done
  return 1
}

python_for_venv() {
  local name
  for name in ${PYTHON:-python3.11 python3.12 python3}; do
    if command -v "$name" >/dev/null &&
      "$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null; then
      command -v "$name"
      return 0
    fi
  done
  echo "install: Python 3.11 or 3.12 with venv is needed, and ${PYTHON:-none on PATH} is not" >&2
  return 1
}

if [ ! -x "$venv/bin/python" ]; then
  python=$(python_for_venv)
  say "making $venv with $("$python" --version)"
  "$python" -m venv "$venv"
fi

if ! "$venv/bin/uv" --version 2>/dev/null | grep -qF "uv $uv_version"; then
  say "uv $uv_version"
  retry "$venv/bin/pip" install --quiet --retries 5 "uv==$uv_version"
fi
uv() { VIRTUAL_ENV=$venv "$venv/bin/uv" "$@"; }

say "torch (a few hundred megabytes when it is not cached)"
retry "$venv/bin/pip" install --quiet --retries 5 --no-deps -r "$here/torch.lock"
say "everything else ($(grep -c "==" "$here/all.lock") pinned packages)"
retry uv pip install --quiet --no-deps --require-hashes -r "$here/all.lock"
say "onward itself, editable"
retry uv pip install --quiet --no-deps -e "$here/.."

if ! "$venv/bin/python" -c 'import torch' 2>/dev/null; then
  say "this torch is the CUDA build and lacks its libraries: fetching them (gigabytes)"
  retry "$venv/bin/pip" install --retries 5 -r "$here/torch.lock"
  "$venv/bin/python" -c 'import torch'
fi
say "done: $("$venv/bin/python" -c 'import torch; print("torch", torch.__version__)')"
