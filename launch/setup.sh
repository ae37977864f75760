# shellcheck shell=bash
# The set-up that the scripts of launch/ share; it is sourced, not run, under `set -euo pipefail`.
#   source launch/setup.sh     gives ROOT (the checkout) and the functions below
#   setup [EXTRA ...]          makes ROOT/.venv, installs the package with these extras, gives PY (its Python)
# A second call with the same extras installs nothing. PYTHON=/path/to/python chooses the interpreter for a new .venv.

ROOT="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)"

say() { printf '%s: %s\n' "$(basename -- "$0")" "$*" >&2; }

# What a user can mend: one line, status 2.
refuse() {
  say "$*"
  exit 2
}

# True for a Python >= 3.11 that can make a venv. It has to be run: a pyenv shim is on PATH for versions it does not
# serve, and Debian's python3 comes without ensurepip.
is_usable() { "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
  local candidate
  for candidate in ${PYTHON:+"$PYTHON"} python3.13 python3.12 python3.11 python3; do
    if is_usable "$candidate"; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  return 1
}

# A TPU is seen the way jax sees it: a PCI device of Google's (0x1ae0) with one of these ids (v2/v3, v4, v5p, v5e, v6e,
# 7x). No metadata server is asked, so nothing hangs off the cloud; Google's network card has the vendor, not the id.
has_tpu() {
  local device vendor id
  for device in /sys/bus/pci/devices/*; do
    [[ -r "$device/vendor" && -r "$device/device" ]] || continue
    read -r vendor <"$device/vendor" || continue
    [[ "$vendor" == 0x1ae0 ]] || continue
    read -r id <"$device/device" || continue
    case "$id" in 0x0027 | 0x0056 | 0x005e | 0x0062 | 0x0063 | 0x006f | 0x0076) return 0 ;; esac
  done
  return 1
}

# What an install depends on: the metadata, the place (an editable install points to it) and the Python.
fingerprint() {
  "$PY" - "$ROOT" <<'PYTHON'
import hashlib, pathlib, sys
root = pathlib.Path(sys.argv[1])
parts = [(root / "setup.py").read_bytes(), (root / "pyproject.toml").read_bytes(), str(root).encode(), sys.version.encode()]
print(hashlib.sha256(b"\0".join(parts)).hexdigest())
PYTHON
}

setup() {
  local python extras stamp hash requirement="$ROOT"
  local venv="$ROOT/.venv"
  PY="$venv/bin/python"
  if ! "$PY" -c '' >/dev/null 2>&1; then # absent, or the Python it was made from is gone
    python="$(find_python)" ||
      refuse "no Python >= 3.11 with the venv module on PATH: install one (Debian: python3 python3-venv) or set PYTHON=/path/to/it"
    say "making $venv with $("$python" --version)"
    "$python" -m venv --clear "$venv" || refuse "cannot make $venv: the reason is above"
  fi
  "$PY" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    refuse "$venv has $("$PY" --version), 3.11 is needed: remove it and start again"

  if has_tpu; then set -- "$@" tpu; fi
  extras="$(IFS=,; printf '%s' "$*")"
  stamp="$venv/installed-${extras:-base}"
  hash="$(fingerprint)"
  if [[ -f "$stamp" && "$(<"$stamp")" == "$hash" ]]; then return; fi

  if [[ -n "$extras" ]]; then requirement+="[$extras]"; fi
  say "installing janus_jax${extras:+ with [$extras]} into $venv (about a minute on a fresh machine)"
  # An interrupted venv has no pip yet, and neither has one that uv made.
  "$PY" -m pip --version >/dev/null 2>&1 || "$PY" -m ensurepip >/dev/null
  "$PY" -m pip install --quiet --disable-pip-version-check --editable "$requirement" </dev/null || {
    say "pip could not install the package: the reason is above"
    exit 1
  }
  printf '%s\n' "$hash" >"$stamp"
}
