#!/usr/bin/env bash
# From nothing to the tables of docs/results.md, on the embedded world: tokenizer, base model, SFT, RL (three seeds), evaluation.
#   launch/train_shapes.sh      about three hours on two CPU cores; everything goes to runs/
# Every command resumes by itself: started again, the script goes on where it was.
set -euo pipefail
# shellcheck source=launch/setup.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"
setup
cd -- "$ROOT"
# A command that was interrupted saves and ends well; what follows must not start then.
trap 'exit 130' INT
trap 'exit 143' TERM

"$PY" -m janus_jax.train_vq --config configs/shapes_vq.py --workdir runs/vq
[[ -f runs/cache.npz ]] ||
  "$PY" -m janus_jax.cache_codes --tokenizer runs/vq/model --data-dir runs/data --out runs/cache.npz
"$PY" -m janus_jax.train_sft --config configs/shapes_base.py --workdir runs/base
[[ -f runs/cache_free.npz ]] ||
  "$PY" -m janus_jax.cache_codes --tokenizer runs/vq/model --data-dir runs/data --split train_free --out runs/cache_free.npz
[[ -f runs/drawn.npz ]] ||
  "$PY" -m janus_jax.label_drawings --checkpoint runs/base --cache runs/cache.npz runs/cache_free.npz --out runs/drawn.npz
"$PY" -m janus_jax.train_sft --config configs/shapes_sft.py --workdir runs/sft
for seed in 0 1 2; do
  "$PY" -m janus_jax.train_rl --config configs/shapes_rl.py --workdir "runs/rl$seed" --config.seed="$seed"
done
# What is shipped is what is measured: bf16 on disk.
for name in sft rl0 rl1 rl2; do
  [[ -d "runs/stored/$name" ]] ||
    "$PY" -m janus_jax.convert --src "runs/$name" --dst "runs/stored/$name" --to own --dtype bfloat16
  [[ -f "runs/eval_$name.json" ]] ||
    "$PY" -m janus_jax.evaluate --checkpoint "runs/stored/$name" --suite shapes --rounds 3 --samples 4 --out "runs/eval_$name.json"
done
"$PY" -m janus_jax.compare --baseline runs/eval_sft.json runs/eval_rl0.json runs/eval_rl1.json runs/eval_rl2.json
