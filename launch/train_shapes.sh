#!/usr/bin/env bash
# From nothing to the tables of docs/results.md: tokenizer, base model, SFT in several parts, with drawings of the model
# and fresh pictures in between, RL (three seeds, drawing and editing), evaluation.
#   launch/train_shapes.sh      everything goes to runs/. Over five hours on two CPU cores: its commands were run one by
#                               one, on three days, beside other work; not yet in one go
# Every command resumes by itself: started again, the script goes on where it was. What is chosen is chosen on validation
# prompts; the test prompts are asked for at the end alone.
set -euo pipefail
# shellcheck source=launch/setup.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"
setup
cd -- "$ROOT"
# A command that was interrupted saves and ends well; what follows must not start then, and what runs beside it must end.
stop() {
  trap - INT TERM
  local beside
  mapfile -t beside < <(jobs -p)
  ((${#beside[@]} == 0)) || kill -TERM "${beside[@]}" 2>/dev/null || true
  wait
  exit "$1"
}
trap 'stop 130' INT
trap 'stop 143' TERM

WORLD=second
# Of stage 2: three quarters of the prompts edit, since drawing is right already; groups whose members fare alike teach
# nothing, and are drawn anew up to twice.
STAGE2=(--config.credit=released/own_prompt --config.rounds=2 --config.max_reason_tokens=24 --config.task=both
  --config.edit_share=0.75 --config.reward.weights="{'match':1.0,'following':0.5,'preserving':1.0}"
  --config.prompts_per_step=12 --config.prompt_tokens=40 --config.steps=36 --config.redraws=2
  --config.learning_rate=4e-5 --config.turn_learning_rate=4e-5 --config.retention_prompts=96 --config.retention_every=20)

# run NAME ARGS...: one command of the package
run() {
  local name="$1"
  shift
  "$PY" -m "janus_jax.$name" "$@"
}

# together FUNCTION ARG...: FUNCTION of each ARG side by side; fails where one fails
together() {
  local call="$1" pids=() failed=0
  shift
  for argument in "$@"; do
    "$call" "$argument" &
    pids+=($!)
  done
  for pid in "${pids[@]}"; do
    wait "$pid" || failed=$?
  done
  return "$failed"
}

# 1. The picture tokenizer, and beside it the rendered pictures.
pictures() {
  case "$1" in
    tokenizer) run train_vq --config configs/shapes_vq.py --workdir runs/vq ;;
    data) "$PY" -c "
from janus_jax.cache_codes import data_set
from janus_jax.shapes.world import WORLDS
data_set('runs/data', WORLDS['$WORLD'])" ;;
  esac
}
together pictures tokenizer data

# 2. Their codes, and those of edits.
codes() {
  case "$1" in
    train) [[ -f runs/cache.npz ]] || run cache_codes --tokenizer runs/vq/model --data-dir runs/data --out runs/cache.npz ;;
    free) [[ -f runs/cache_free.npz ]] ||
      run cache_codes --tokenizer runs/vq/model --data-dir runs/data --split train_free --out runs/cache_free.npz ;;
    edits) [[ -f runs/edits.npz ]] ||
      run cache_codes --task edit --edits 4000 --tokenizer runs/vq/model --out runs/edits.npz ;;
  esac
}
together codes train free
codes edits

# 3. The base model; its drawings with labels; stage 1; the drawings of what comes out, with which stage 1 goes on.
run train_sft --config configs/shapes_base.py --workdir runs/base
label() {
  [[ -f "$2" ]] || run label_drawings --checkpoint "$1" --cache runs/cache.npz runs/cache_free.npz --out "$2"
}
label runs/base runs/drawn.npz
run train_sft --config configs/shapes_sft.py --workdir runs/sft1
label runs/sft1 runs/drawn1.npz

# 4. The judge alone. Mixed into all else, and of all prompts at once, it learns to count and no more: whether the one
# object is the one that is asked for it learns in minutes where that alone is asked, and the rest from there.
judge() { # NAME INIT STEPS SCHEDULE CATEGORIES
  run train_sft --config configs/shapes_sft.py --workdir "runs/$1" --config.init="runs/$2" \
    --config.cache=runs/drawn1.npz --config.edits= --config.steps="$3" --config.decay_steps="$4" \
    --config.categories="$5" --config.buckets="((84,(('judge',0,56),('answer',0,8))),)" \
    --config.shares="(0,1,0,0.2,0)"
}
judge judge1 sft1 324 1500 "('single_object','colors')"
judge judge2 judge1 445 1200 "()"
judge judge3 judge2 350 1200 "('single_object','colors','two_object','color_attribution')"

# 5. All tasks again, with more of the judge; then edits and redraws for the most part, since copying is learnt late.
run train_sft --config configs/shapes_sft.py --workdir runs/sft2 --config.init=runs/judge3 \
  --config.cache=runs/drawn1.npz --config.steps=1500 --config.learning_rate=6e-4 --config.shares="(10,20,12,2,6)" \
  --config.buckets="((62,(('draw',0,24),)),(84,(('judge',0,26),('describe',0,2),('answer',0,4))),\
(126,(('redraw',1,8),('edit',0,4))),(142,(('judge',1,6),('judge_edit',0,4))),\
(190,(('redraw',2,4),('judge',2,2),('edit',1,2))))"
run train_sft --config configs/shapes_sft.py --workdir runs/copy --config.init=runs/sft2 \
  --config.cache=runs/drawn1.npz --config.steps=700 --config.decay_steps=2000 --config.learning_rate=1e-3 \
  --config.buckets="((62,(('draw',0,16),)),(126,(('edit',0,40),('redraw',1,16))))" --config.shares="(6,0,14,0,30)"

# 6. The model knows the 9000 prompts and 4000 edits by heart by now. It goes on with pictures that it hardly sees twice,
# and learns to draw from pictures whose objects stand in the order of their names.
fresh() { # OUT ARGS...
  [[ -f "runs/$1" ]] || run cache_codes --tokenizer runs/vq/model --out "runs/$1" "${@:2}"
}
fresh composed_edits.npz --task edit --composed 20000 --seed 1
fresh composed1.npz --composed 12000 --seed 2
fresh composed2.npz --composed 12000 --seed 3
fresh composed3.npz --composed 7000 --seed 5
fresh draws.npz --draws 60000 --seed 4
run train_sft --config configs/shapes_sft.py --workdir runs/sft3 --config.init=runs/copy \
  --config.cache=runs/drawn1.npz,runs/composed1.npz --config.edits= --config.steps=500 --config.decay_steps=4000 \
  --config.learning_rate=1e-3 --config.shares="(20,18,0,3)" \
  --config.buckets="((62,(('draw',0,96),)),(84,(('judge',0,48),('describe',0,2),('answer',0,6))))"
CACHES=runs/drawn1.npz,runs/composed1.npz,runs/composed2.npz
run train_sft --config configs/shapes_sft.py --workdir runs/sft4 --config.init=runs/sft3 --config.cache="$CACHES" \
  --config.edits=runs/composed_edits.npz,runs/edits.npz --config.draws=runs/draws.npz --config.steps=750 \
  --config.decay_steps=3600 --config.learning_rate=1e-3 \
  --config.shares="(14,14,10,2,12)" \
  --config.buckets="((62,(('draw',0,64),)),(84,(('judge',0,32),('describe',0,2),('answer',0,6))),\
(126,(('redraw',1,12),('edit',0,20))),(142,(('judge',1,4),('judge_edit',0,12))),\
(190,(('redraw',2,4),('judge',2,2),('edit',1,2))))"
relabel() {
  [[ -f "runs/$1" ]] ||
    run label_drawings --checkpoint runs/sft4 --cache "runs/$2" --samples "$3" --cfg 1.5 --out "runs/$1"
}
relabel drawn2.npz composed3.npz 1
relabel drawn_edits.npz edits.npz 2

run train_sft --config configs/shapes_sft.py --workdir runs/sft5 --config.init=runs/sft4 \
  --config.cache="runs/drawn2.npz,$CACHES" --config.edits=runs/composed_edits.npz,runs/drawn_edits.npz \
  --config.draws=runs/draws.npz --config.steps=1500 --config.learning_rate=8e-4 --config.shares="(10,18,10,2,12)" \
  --config.cfg_weight=1.5 \
  --config.buckets="((62,(('draw',0,48),)),(84,(('judge',0,36),('describe',0,2),('answer',0,6))),\
(126,(('redraw',1,14),('edit',0,20))),(142,(('judge',1,8),('judge_edit',0,16))),\
(190,(('redraw',2,4),('judge',2,2),('edit',1,2))))"

# 7. Edits, and their judge. Which object an instruction means is learnt as the judge was, easy ones first: of all edits
# at once the model removes any object, and recolours any.
fresh ordered1.npz --composed 8000 --ordered --seed 7
fresh ordered2.npz --composed 8000 --ordered --seed 8
fresh easy_edits.npz --task edit --composed 4100 --kinds remove recolor --objects 2 --seed 9
fresh composed_edits2.npz --task edit --composed 40000 --near 0 --seed 6
lesson() { # NAME INIT CACHES EDITS STEPS DECAY SCRAMBLED SHARES BUCKETS
  run train_sft --config configs/shapes_sft.py --workdir "runs/$1" --config.init="runs/$2" --config.cache="$3" \
    --config.edits="runs/$4" --config.draws=runs/draws.npz --config.steps="$5" --config.decay_steps="$6" \
    --config.learning_rate=1e-3 --config.scrambled="$7" --config.shares="$8" --config.buckets="$9"
}
lesson copy2 sft5 runs/composed2.npz composed_edits.npz 600 2400 0.5 "(8,0,12,0,30)" \
  "((62,(('draw',0,32),)),(126,(('edit',0,80),('redraw',1,32))))"
lesson easy copy2 runs/ordered1.npz easy_edits.npz 220 1500 0 "(2,0,0,0,30)" \
  "((62,(('draw',0,8),)),(126,(('edit',0,128),)))"
lesson easy_judge easy runs/ordered1.npz easy_edits.npz 260 1500 0 "(1,20,0,0,10)" \
  "((62,(('draw',0,8),)),(84,(('judge',0,8),)),(126,(('edit',0,24),)),(142,(('judge_edit',0,72),)))"
lesson all_edits easy_judge runs/ordered1.npz,runs/ordered2.npz composed_edits.npz 350 2400 0.25 "(4,14,6,0,24)" \
  "((62,(('draw',0,16),)),(84,(('judge',0,8),)),(126,(('edit',0,72),('redraw',1,8))),(142,(('judge_edit',0,40),)))"

# 8. All tasks again, with drawings of sft5.
[[ -f runs/drawn3.npz ]] ||
  run label_drawings --checkpoint runs/sft5 --cache runs/ordered2.npz --samples 1 --cfg 1 --out runs/drawn3.npz
run train_sft --config configs/shapes_sft.py --workdir runs/sft6 --config.init=runs/all_edits \
  --config.cache=runs/drawn3.npz,runs/ordered1.npz,runs/composed1.npz \
  --config.edits=runs/composed_edits.npz,runs/composed_edits2.npz --config.draws=runs/draws.npz \
  --config.mended=0.5 --config.scrambled=0.25 --config.steps=1800 --config.learning_rate=8e-4 \
  --config.shares="(10,18,10,2,14)" \
  --config.buckets="((62,(('draw',0,44),)),(84,(('judge',0,32),('describe',0,2),('answer',0,6))),\
(126,(('redraw',1,20),('edit',0,36))),(142,(('judge',1,6),('judge_edit',0,20))),\
(190,(('redraw',2,4),('judge',2,2),('edit',1,2))))"

# 9. The last mixture. Edits of what is not there, too: where it always is, what is meant can be told by contrast, and of
# two shapes that training never shows together that says nothing. Redraws aim at any right picture. Then the guidance
# weight and the temperature that are best on validation prompts are chosen; the model is told them, and stage 2 asks
# more of what fails with them.
fresh void_edits.npz --task edit --void 20000 --seed 10
STAGE1=(--config configs/shapes_sft.py --workdir runs/sft --config.init=runs/sft6
  --config.cache="runs/drawn3.npz,runs/ordered1.npz"
  --config.edits="runs/composed_edits.npz,runs/composed_edits2.npz,runs/void_edits.npz"
  --config.draws=runs/draws.npz --config.mended=0 --config.scrambled=0.25
  --config.steps=520 --config.learning_rate=7e-4 --config.shares="(10,18,12,2,16)"
  --config.buckets="((62,(('draw',0,28),)),(84,(('judge',0,24),('describe',0,2),('answer',0,4))),\
(126,(('redraw',1,24),('edit',0,52))),(142,(('judge',1,4),('judge_edit',0,18))),\
(190,(('redraw',2,2),('judge',2,2),('edit',1,2))))")
run train_sft "${STAGE1[@]}"
validate() { # GUIDANCE TEMPERATURE
  [[ -f "runs/validation_$1_$2.json" ]] || run evaluate --checkpoint runs/sft --suite shapes --split validation \
    --cfg "$1" --temperature "$2" --rounds 3 --samples 2 --prompts-per-category 50 --out "runs/validation_$1_$2.json"
}
best() { # SETTING..., each "GUIDANCE TEMPERATURE": the one with the most right pictures in the end
  "$PY" -c '
import json, sys
final = {s: json.load(open("runs/validation_{}_{}.json".format(*s.split())))["overall"]["final"] for s in sys.argv[1:]}
print(max(final, key=final.get))' "$@"
}
for guidance in 1.0 1.5 2.0 3.0; do validate "$guidance" 0.7; done
read -r guidance _ < <(best "1.0 0.7" "1.5 0.7" "2.0 0.7" "3.0 0.7")
for temperature in 0.3 0.5 1.0; do validate "$guidance" "$temperature"; done
read -r _ temperature < <(best "$guidance 0.3" "$guidance 0.5" "$guidance 0.7" "$guidance 1.0")
CHOSEN=(--config.cfg_weight="$guidance" --config.temperature="$temperature")
run train_sft "${STAGE1[@]}" "${CHOSEN[@]}" # has ended: the model is written anew

# 10. Stage 2, with more of what fails.
stage2() {
  run train_rl --config configs/shapes_rl.py --workdir "runs/rl$1" --config.seed="$1" "${STAGE2[@]}" "${CHOSEN[@]}" \
    --config.failures="('runs/validation_${guidance}_$temperature.json',)"
}
together stage2 0 1
stage2 2

# 11. What is shipped is what is measured: bf16 on disk.
measure() {
  [[ -d "runs/stored/$1" ]] || run convert --src "runs/$1" --dst "runs/stored/$1" --to own --dtype bfloat16
  [[ -f "runs/eval_$1.json" ]] ||
    run evaluate --checkpoint "runs/stored/$1" --suite shapes --rounds 3 --samples 4 --out "runs/eval_$1.json"
  [[ -f "runs/redraw_$1.json" ]] ||
    run evaluate --checkpoint "runs/stored/$1" --suite shapes_redraw --samples 2 --prompts-per-category 50 \
      --out "runs/redraw_$1.json"
  [[ -f "runs/edits_$1.json" ]] ||
    run evaluate --checkpoint "runs/stored/$1" --suite shapes_edit --rounds 3 --samples 2 --out "runs/edits_$1.json"
  [[ -f "runs/questions_$1.json" ]] ||
    run evaluate --checkpoint "runs/stored/$1" --suite shapes_questions --out "runs/questions_$1.json"
}
# What introspection has to beat: as many fresh samples, by the model's own Yes and by its P(yes).
instead() {
  [[ -f "runs/$1_rl0.json" ]] || run evaluate --checkpoint runs/stored/rl0 --suite shapes --again "$1" --rounds 3 \
    --samples 4 --out "runs/$1_rl0.json"
}
together measure sft rl0
together measure rl1 rl2
together instead fresh best
run compare --baseline runs/fresh_rl0.json runs/eval_rl0.json
run compare --baseline runs/best_rl0.json runs/eval_rl0.json
run compare --baseline runs/eval_sft.json runs/eval_rl0.json runs/eval_rl1.json runs/eval_rl2.json
