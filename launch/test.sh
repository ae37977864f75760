#!/usr/bin/env bash
# The tests on a fresh machine: .venv in the checkout, install, pytest on the CPU.
#   launch/test.sh [--slow] [--parity] [pytest arguments]
#   --slow     the tests marked slow, too
#   --parity   installs PyTorch and transformers and runs the tests marked parity, too
set -euo pipefail
# shellcheck source=launch/setup.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"

slow=0 parity=0 arguments=()
for argument in "$@"; do
  case "$argument" in
    --slow) slow=1 ;;
    --parity) parity=1 ;;
    *) arguments+=("$argument") ;;
  esac
done

case "$slow$parity" in
  00) marks="not slow and not parity" ;;
  01) marks="not slow" ;;
  10) marks="not parity" ;;
  11) marks="" ;;
esac

if ((parity)); then setup dev parity; else setup dev; fi
# Without what it depends on: its arithmetic is compared with, and the rest of it wants other versions than ours.
if ((parity)); then "$PY" -m pip install --quiet --disable-pip-version-check --no-deps google-tunix==0.1.7 </dev/null; fi

cd -- "$ROOT"
# The tests want eight CPU devices wherever they run; JAX_PLATFORMS=tpu or cuda is for those who know.
export JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}"
# A later -m of the caller's wins over this one.
exec "$PY" -m pytest -m "$marks" ${arguments[@]+"${arguments[@]}"}
