#!/usr/bin/env bash
# The tests on a fresh machine: .venv in the checkout, install, pytest on the CPU.
#   launch/test.sh [--slow] [--parity] [--aot] [pytest arguments]
#   --slow     the tests marked slow, too
#   --parity   installs PyTorch and transformers and runs the tests marked parity, too
#   --aot      installs libtpu and runs the tests marked aot, which compile for TPUs, too
set -euo pipefail
# shellcheck source=launch/setup.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"

marks="" extras=(dev) arguments=()
unwanted=" slow parity aot "
for argument in "$@"; do
  case "$argument" in
    --slow) unwanted="${unwanted/ slow / }" ;;
    --parity) unwanted="${unwanted/ parity / }" extras+=(parity) ;;
    --aot) unwanted="${unwanted/ aot / }" extras+=(aot) ;;
    *) arguments+=("$argument") ;;
  esac
done

for mark in $unwanted; do marks+="${marks:+ and }not $mark"; done

setup "${extras[@]}"
# Without what it depends on: its arithmetic is compared with, and the rest of it wants other versions than ours.
if [[ "$unwanted" != *" parity "* ]]; then
  "$PY" -m pip install --quiet --disable-pip-version-check --no-deps google-tunix==0.1.7 </dev/null
fi

cd -- "$ROOT"
# The tests want eight CPU devices wherever they run; JAX_PLATFORMS=tpu or cuda is for those who know.
export JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}"
# All of them by two processes, a file at a time: what takes the time, tracing and compiling, uses one core.
if ((!${#arguments[@]})); then arguments=(-n 2 --dist loadfile); fi
# A later -m of the caller's wins over this one.
exec "$PY" -m pytest -m "$marks" "${arguments[@]}"
