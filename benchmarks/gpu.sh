#!/usr/bin/env bash
# What benchmarks/gpu.py measures, on a machine with one GPU: benchmarks/gpu.sh OUT. Under ten minutes; nothing is
# downloaded. Needs no wheels beyond jax with its CUDA plugin, flax >= 0.12.9 where jax is 0.11, optax, numpy, Pillow,
# torch and transformers. What is missing can travel as wheels: put them into .whl/ beside this folder.
set -eu
cd "$(dirname "$0")/.."
out=${1:?usage: benchmarks/gpu.sh OUT}
mkdir -p "$out"
if compgen -G '.whl/*.whl' >/dev/null; then
  python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target /tmp/site .whl/*.whl
  export PYTHONPATH=/tmp/site
fi
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
python3 -c 'import jax, flax, torch, transformers; print(jax.__version__, flax.__version__, torch.__version__, transformers.__version__, jax.devices())'
exec python3 -m benchmarks.gpu "$out"
