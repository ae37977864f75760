#!/usr/bin/env bash
# The whole story on the embedded world, on a fresh machine, in at most ten minutes on two CPU cores:
#   launch/quickstart.sh [OUT]          OUT: runs/quickstart in the checkout by default
# Installs into .venv, draws held-out prompts with introspection (OUT/storyboard.png), measures the SFT checkpoint,
# continues RL from it for some steps and measures again (OUT/results.json). Started again, it takes up the training
# where it was.
set -euo pipefail
# shellcheck source=launch/setup.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"

case "${1:-}" in -h | --help)
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
  exit
  ;;
esac
if (($# > 1)); then refuse "one argument at most, the output folder; got $#"; fi

out="${1:-$ROOT/runs/quickstart}"
# Before any minute is spent: can a file be made there? (As root, test -w says yes to a read-only disk.)
probe=""
if mkdir -p -- "$out" 2>/dev/null; then probe="$(mktemp -- "$out/.probe.XXXXXX" 2>/dev/null)" || true; fi
if [[ -z "$probe" ]]; then refuse "cannot write to $out: name a folder that can be written, launch/quickstart.sh OUT"; fi
rm -f -- "$probe"
out="$(cd -- "$out" && pwd -P)" # as seen from the caller's folder; the commands run in the checkout

# step TITLE COMMAND...: runs it and says how long it took. `set -e` ends the script with a failing command's own status;
# Ctrl-C ends it although the training, which saves at SIGINT, leaves with 0.
title="" status=0
trap 'status=$?; if ((status)) && [[ -n "$title" ]]; then say "stopped with status $status in: $title"; fi' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
step() {
  local start=$SECONDS
  title="$1"
  printf '\n== %s\n' "$title"
  "${@:2}"
  printf '== done in %d s\n' "$((SECONDS - start))"
}

evaluate() { # CHECKPOINT FILE
  "$PY" -m janus_jax.evaluate --checkpoint "$1" --suite shapes --rounds 3 --samples 1 --prompts-per-category 16 --out "$2"
}

draw() {
  "$PY" -m janus_jax.generate --checkpoint shapes-rl --prompts "$out/prompts.txt" --samples 2 --rounds 3 --out "$out/draw"
  cp -- "$out/draw/storyboard.png" "$out/storyboard.png"
}

train() {
  "$PY" -m janus_jax.train_rl --config configs/shapes_rl.py --workdir "$out/rl" --config.steps=20 --config.init=shapes-sft
}

report() {
  "$PY" - "$out/before.json" "$out/after.json" "$out/results.json" <<'PYTHON'
import json, pathlib, sys

before, after, results = map(pathlib.Path, sys.argv[1:])
before, after = json.loads(before.read_text()), json.loads(after.read_text())
results.write_text(json.dumps({"before": before, "after": after}, indent=2) + "\n")

show = lambda value: "-" if value is None else f"{value:.2f}"
row = lambda title, *cells: print(f"{title:<20}" + "".join(f"{cell:>9}" for cell in cells))
row("", "before", "", "after", "")
row("", "first", "final", "first", "final")
cells = lambda pick: [show(pick(report)[which]) for report in (before, after) for which in ("first", "final")]
for category in before["categories"]:
    row(category.replace("_", " "), *cells(lambda report, name=category: report["categories"][name]))
row("all", *cells(lambda report: report["overall"]))
for rate in ("repair_rate", "spoil_rate", "judge_agreement"):
    row(rate.replace("_", " "), "", show(before[rate]), "", show(after[rate]))
print(f"held-out accuracy over n = {before['n']}; a few RL steps on few prompts show that it runs, not what it reaches")
PYTHON
}

setup
printf '== set-up done in %d s\n' "$SECONDS"
cd -- "$ROOT"

# One held-out prompt for each of the six categories.
"$PY" -c 'from janus_jax.shapes.text import held_out_prompts; print(*held_out_prompts(1), sep="\n")' >"$out/prompts.txt"

step "draw, judge, draw again (shapes-rl)" draw
step "held-out accuracy before (shapes-sft)" evaluate shapes-sft "$out/before.json"
step "20 steps of RL from shapes-sft" train
step "held-out accuracy after" evaluate "$out/rl" "$out/after.json"

printf '\n'
report
printf '\nstoryboard  %s\nresults     %s\nin all      %d s\n' "$out/storyboard.png" "$out/results.json" "$SECONDS"
printf 'A page to draw on: %s -m pip install -e "%s[app]" && %s -m janus_jax.app\n' "$PY" "$ROOT" "$PY"
