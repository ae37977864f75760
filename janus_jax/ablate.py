"""An ablation: several trainings of one recipe with a setting changed, each evaluated, and one table.

    python -m janus_jax.ablate --config configs/shapes_ablate.py --workdir runs/ablate

Every training and every evaluation is one of this package's own commands in a process of its own, in
WORKDIR/ROW-SEED. Started again, the command goes on where it was: what is finished is not done again, a training that
was cut resumes by itself. After each evaluation WORKDIR/table.md is written anew.

config.rows: a tuple of dicts, done in this order:
    name       what the table and its folders call the row
    train      (command, configuration file), or () to evaluate without training
    set        settings in place of the file's; "@NAME" stands for the workdir of row NAME, seed 0
    seeds      as many runs, seeds 0, 1, ...
    evaluate   False for a step on the way
    best_of    evaluate single pictures, the best of so many by the model's own P(yes), in place of introspection
config.evaluate: prompts_per_category, samples, rounds, batch, seed.
"""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

from janus_jax import cli, scores
from janus_jax.errors import UserError

ROW = {"train": (), "set": {}, "seeds": 1, "evaluate": True, "best_of": 0}


def rows_of(config) -> dict[str, dict]:
    """config.rows with all keys, checked. Raises UserError for an unknown key, command, or row referred to."""
    rows = {}
    for number, row in enumerate(config.rows):
        name = row.get("name", "")
        if not re.fullmatch(r"[\w.-]+", name) or name in rows:
            raise UserError(f"config.rows[{number}] is called {name!r}: give it a name of its own, of letters and _.-")
        row = {key: value for key, value in row.items() if key != "name"}
        unknown = row.keys() - ROW.keys()
        if unknown:
            raise UserError(f"row {name} has {', '.join(unknown)}: its keys are name, {', '.join(ROW)}")
        row = {**ROW, **row}
        if row["train"] and (len(row["train"]) != 2 or row["train"][0] not in ("train_sft", "train_rl")):
            raise UserError(f"row {name}: train is {row['train']}; give (train_sft or train_rl, configuration file)")
        if row["seeds"] < 1:
            raise UserError(f"row {name}: seeds is {row['seeds']}: give at least 1")
        for value in row["set"].values():
            if isinstance(value, str) and value.startswith("@") and not rows.get(value[1:], ROW)["train"]:
                raise UserError(f"row {name} refers to {value}: no row above it trains under that name")
        if not row["train"] and "init" not in row["set"]:
            raise UserError(f"row {name} trains nothing: give set.init, what to evaluate")
        rows[name] = row
    if not rows:
        raise UserError("config.rows is empty: add what to train")
    return rows


def place(workdir: Path, name: str, seed: int) -> Path:
    """Where a run of a row lies."""
    return workdir / f"{name}-{seed}"


def training(workdir: Path, name: str, row: dict, seed: int) -> list[str]:
    """The command line of a run."""
    command, file = row["train"]
    line = [sys.executable, "-m", f"janus_jax.{command}", "--config", file]
    line += ["--workdir", str(place(workdir, name, seed)), f"--config.seed={seed}"]
    return line + [f"--config.{key}={settle(workdir, value)}" for key, value in row["set"].items()]


def settle(workdir: Path, value):
    """A setting's value, with "@NAME" for the workdir of a row."""
    return str(place(workdir, value[1:], 0)) if isinstance(value, str) and value.startswith("@") else value


def evaluation(workdir: Path, name: str, row: dict, seed: int, settings) -> tuple[list[str], Path]:
    """The command line of a run's evaluation, and its result. best_of draws as many single pictures per sample."""
    model = place(workdir, name, seed) if row["train"] else settle(workdir, row["set"]["init"])
    out = workdir / f"{name}-{seed}.json"
    rounds, samples = settings.rounds, settings.samples
    if row["best_of"]:
        rounds, samples = 1, samples * row["best_of"]
    line = [sys.executable, "-m", "janus_jax.evaluate", "--checkpoint", str(model), "--out", str(out)]
    line += ["--rounds", str(rounds), "--samples", str(samples), "--seed", str(settings.seed)]
    line += ["--prompts-per-category", str(settings.prompts_per_category), "--batch", str(settings.batch)]
    return line, out


def best_of(outcomes, n: int) -> tuple[float, float]:
    """(mean, standard error clustered by prompt) of the accuracy of the most probable Yes among n single pictures.
    outcomes: as `evaluate` writes them, with samples side by side."""
    right, prompts = [], []
    for begin in range(0, len(outcomes), n):
        part = outcomes[begin : begin + n]
        if len({one["prompt"] for one in part}) != 1:
            raise ValueError("samples of one prompt do not divide into groups of n")
        chosen = max(part, key=lambda one: one["p_yes"][0])
        right.append(float(chosen["right"][0]))
        prompts.append(chosen["prompt"])
    return scores.clustered(right, prompts)


def figures(path: Path, row: dict) -> dict[str, tuple[float, float]] | None:
    """Of an evaluation: "first", "final" and others, each (value, standard error); None where it is not there yet."""
    if not path.is_file():
        return None
    report = json.loads(path.read_text())
    if row["best_of"]:
        lines = path.with_suffix(".trajectories.jsonl").read_text().splitlines()
        return {"final": best_of([json.loads(line) for line in lines], row["best_of"])}
    errors = report["stderr"]
    result = {stage: (report["overall"][stage], errors[stage]) for stage in ("first", "final")}
    keys = ("gain", "repair_rate", "spoil_rate", "judge_agreement_balanced", "rounds_used")
    return result | {key: (report[key], errors[key]) for key in keys if report[key] is not None}


COLUMNS = {
    "first": "first picture",
    "final": "after introspection",
    "gain": "gain",
    "repair_rate": "repair",
    "spoil_rate": "spoil",
    "judge_agreement_balanced": "agreement, balanced",
    "rounds_used": "pictures",
}


def cell(values) -> str:
    """Of one run: value ± its error over prompts; of more: mean ± error over runs."""
    values = [value for value in values if value is not None]
    if not values:
        return ""
    if len(values) == 1:
        mean, error = values[0]
        return f"{mean:.3f}" if error is None else f"{mean:.3f} ± {error:.3f}"
    means = np.array([mean for mean, _ in values])
    return f"{means.mean():.3f} ± {means.std(ddof=1) / np.sqrt(len(means)):.3f}"


def table(workdir: Path, rows: dict) -> str:
    """Markdown of what has been evaluated so far."""
    lines = [f"| | runs | {' | '.join(COLUMNS.values())} |", "|---" * (2 + len(COLUMNS)) + "|"]
    for name, row in rows.items():
        runs = [figures(workdir / f"{name}-{seed}.json", row) for seed in range(row["seeds"])]
        runs = [run for run in runs if run is not None]
        if runs:
            cells = [cell([run.get(key) for run in runs]) for key in COLUMNS]
            lines.append(f"| {name.replace('_', ' ')} | {len(runs)} | {' | '.join(cells)} |")
    lines += ["", "Errors: of one run over prompts, clustered; of more than one over the runs."]
    return "\n".join(lines) + "\n"


class Runner:
    """Runs commands one after another; a SIGTERM or Ctrl-C reaches the one that runs, and no other is started."""

    def __init__(self):
        self._stop, self._process = False, None
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, self._pass_on)

    def _pass_on(self, number, frame):
        self._stop = True
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def __call__(self, line: list[str], log: Path) -> bool:
        """Whether the command ran to its end. Raises UserError where it failed; what it said is in `log`."""
        if self._stop:
            return False
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "ab") as file:
            # a session of its own: Ctrl-C of the terminal comes through this process alone
            self._process = subprocess.Popen(line, stdout=file, stderr=file, start_new_session=True)
            if self._stop:  # the signal came in between
                self._process.send_signal(signal.SIGTERM)
            status = self._process.wait()
        if self._stop:
            return False
        if status:
            last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
            raise UserError(f"{' '.join(line[2:])} failed ({last[0][:200]}): see {log}")
        return True


def unchanged(path: Path, line: list[str]) -> None:
    """Keeps the command line of a run beside it. Raises UserError where another one began it: rows of one table have
    one configuration."""
    line = " ".join(line[1:])
    if path.is_file() and path.read_text() != line:
        raise UserError(f"{path} says that this run began as another command: use another --workdir, or remove the run")
    cli.write(path, line)


def stopped():
    print("stopped; the same command goes on from here", file=sys.stderr)
    sys.exit(143)


def main(argv):
    if any(arg == "--workdir" or arg.startswith("--workdir=") for arg in argv):
        config, workdir = cli.parse_config(argv, __doc__)
    else:
        config, _ = cli.parse_config(argv, __doc__, workdir=False)
        workdir = Path(config.workdir)
    rows = rows_of(config)
    for name, row in rows.items():
        if row["train"] and not Path(row["train"][1]).is_file():
            raise UserError(f"row {name}: there is no file {row['train'][1]}")
    cli.writable(workdir / "table.md", "--workdir")
    run = Runner()
    for name, row in rows.items():
        for seed in range(row["seeds"]):
            log = workdir / f"{name}-{seed}.log"
            if row["train"]:
                line = training(workdir, name, row, seed)
                unchanged(workdir / f"{name}-{seed}.training", line)
                if not (place(workdir, name, seed) / "model" / "manifest.json").is_file():
                    print(f"{name}, seed {seed}: training", flush=True)
                    if not run(line, log):
                        return stopped()
            line, out = evaluation(workdir, name, row, seed, config.evaluate)
            if row["evaluate"]:
                unchanged(workdir / f"{name}-{seed}.evaluation", line)
            if row["evaluate"] and not out.is_file():
                print(f"{name}, seed {seed}: evaluating", flush=True)
                if not run(line, log):
                    return stopped()
                cli.write(workdir / "table.md", table(workdir, rows))
    print(table(workdir, rows), end="")


if __name__ == "__main__":
    cli.run(main)
