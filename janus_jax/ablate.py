"""Trains a recipe with one setting or another changed, evaluates each run, and writes one table: an ablation.

    python -m janus_jax.ablate --config configs/shapes_ablate.py --workdir runs/ablate

Every training and every evaluation is one of this package's own commands in a process of its own, in
WORKDIR/ROW-SEED. Started again, the command goes on where it was: what is finished is not done again, a training that
was cut resumes by itself. After each evaluation WORKDIR/table.md is written anew.

config.jobs: runs at once, each with its share of the CPU's cores; a run waits for the one it starts from.
config.baseline: the row with which the table compares the others, run by run, or "".

config.rows: a tuple of dicts, done in this order:
    name       what the table and its folders call the row
    train      (command, configuration file), or () to evaluate without training
    set        settings in place of the file's; "@NAME" stands for the workdir of row NAME: its run of the same seed
               where it has one, else that of seed 0
    seeds      as many runs, seeds 0, 1, ...
    evaluate   False for a step on the way
    best_of    evaluate single pictures, the best of so many by the model's own P(yes), in place of introspection
config.evaluate: prompts_per_category, samples, rounds, batch, seed.
"""

import concurrent.futures
import functools
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

from janus_jax import cli, rules
from janus_jax.errors import UserError
from janus_jax.results.compare import across, number, paired, read

ROW = {"train": (), "set": {}, "seeds": 1, "evaluate": True, "best_of": 0}


def rows_of(config) -> dict[str, dict]:
    """config.rows with all keys, checked. Raises UserError for an unknown key, command, or row referred to."""
    rows = {}
    for index, row in enumerate(config.rows):
        name = row.get("name", "")
        if not re.fullmatch(r"[\w.-]+", name) or name in rows:
            raise UserError(f"config.rows[{index}] is called {name!r}: give it a name of its own, of letters and _.-")
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


def same_seed(rows: dict, name: str, seed: int) -> tuple[str, int]:
    """The run of row `name` that goes with a run of this seed."""
    return name, seed if seed < rows[name]["seeds"] else 0


def training(workdir: Path, rows: dict, name: str, seed: int) -> list[str]:
    """The command line of a run."""
    command, file = rows[name]["train"]
    line = [sys.executable, "-m", f"janus_jax.{command}", "--config", file]
    line += ["--workdir", str(place(workdir, name, seed)), f"--config.seed={seed}"]
    return line + [f"--config.{key}={settle(workdir, rows, value, seed)}" for key, value in rows[name]["set"].items()]


def settle(workdir: Path, rows: dict, value, seed: int):
    """A setting's value, with "@NAME" for the workdir of a row."""
    if isinstance(value, str) and value.startswith("@"):
        return str(place(workdir, *same_seed(rows, value[1:], seed)))
    return value


def needed(rows: dict, name: str, seed: int) -> list[tuple[str, int]]:
    """The runs that a run starts from."""
    values = (value for value in rows[name]["set"].values() if isinstance(value, str) and value.startswith("@"))
    return [same_seed(rows, value[1:], seed) for value in values]


def evaluation(workdir: Path, rows: dict, name: str, seed: int, settings) -> tuple[list[str], Path]:
    """The command line of a run's evaluation, and its result."""
    row = rows[name]
    model = place(workdir, name, seed) if row["train"] else settle(workdir, rows, row["set"]["init"], seed)
    out = workdir / f"{name}-{seed}.json"
    line = [sys.executable, "-m", "janus_jax.evaluate", "--no-pictures", "--checkpoint", str(model), "--out", str(out)]
    line += (
        ["--again", "best", "--rounds", str(row["best_of"])] if row["best_of"] else ["--rounds", str(settings.rounds)]
    )
    line += ["--samples", str(settings.samples), "--seed", str(settings.seed)]
    line += ["--prompts-per-category", str(settings.prompts_per_category), "--batch", str(settings.batch)]
    return line, out


def figures(path: Path, row: dict) -> dict[str, tuple[float, float]] | None:
    """Of an evaluation: "first", "final" and others, each (value, standard error); None where it is not there yet."""
    if not path.is_file():
        return None
    report = json.loads(path.read_text())
    errors = report["stderr"]
    if row["best_of"]:
        return {"final": (report["overall"]["final"], errors["final"])}
    result = {stage: (report["overall"][stage], errors[stage]) for stage in ("first", "final")}
    keys = ("gain", "repair_rate", "spoil_rate", "judge_agreement_balanced", "rounds_used")
    return result | {key: (report[key], errors[key]) for key in keys if report[key] is not None}


COLUMNS = {
    "first": "first picture",
    "final": "after introspection",
    "difference": "less the {baseline}'s",
    "gain": "gain",
    "repair_rate": "repair",
    "spoil_rate": "spoil",
    "judge_agreement_balanced": "agreement, balanced",
    "rounds_used": "pictures",
}


PAIRED = ("difference",)
SIGNED = (*PAIRED, "gain")


def cell(values, signed: bool = False) -> str:
    """Of one run: value ± its error over prompts; of more: mean ± error over runs."""
    values = [value for value in values if value is not None]
    if not values:
        return ""
    if len(values) == 1:
        return number(*values[0], "+" if signed else "")
    return across([mean for mean, _ in values], "+" if signed else "")


def difference(workdir: Path, rows: dict, name: str, seed: int, baseline: str) -> tuple[float, float] | None:
    """(mean, standard error) of a run's final accuracy less that of the baseline's run, paired by prompt and sample;
    None where one of them is not there, or they drew differently."""
    if name == baseline or rows[name]["best_of"]:
        return None
    paths = [workdir / f"{row}-{index}.json" for row, index in (same_seed(rows, baseline, seed), (name, seed))]
    if not all(path.is_file() for path in paths):
        return None
    (_, before), (_, after) = map(read, paths)
    return paired(before, after, 1)


def table(workdir: Path, rows: dict, baseline: str = "") -> str:
    """Markdown of what has been evaluated so far."""
    columns = {
        key: title.format(baseline=baseline) for key, title in COLUMNS.items() if baseline or key != "difference"
    }
    lines = [f"| | runs | {' | '.join(columns.values())} |", "|---" * (2 + len(columns)) + "|"]
    for name, row in rows.items():
        runs = {seed: figures(workdir / f"{name}-{seed}.json", row) for seed in range(row["seeds"])}
        runs = {seed: run for seed, run in runs.items() if run is not None}
        if baseline:
            for seed, run in runs.items():
                run["difference"] = difference(workdir, rows, name, seed, baseline)
        if runs:
            cells = [cell([run.get(key) for run in runs.values()], key in SIGNED) for key in columns]
            lines.append(f"| {name.replace('_', ' ')} | {len(runs)} | {' | '.join(cells)} |")
    lines += ["", "Errors: of one run over prompts, clustered; of more than one over the runs."]
    return "\n".join(lines) + "\n"


class Runner:
    """Runs commands, each on its share of the cores where there are to be several at once; a SIGTERM or Ctrl-C reaches
    those that run, and no other is started."""

    def __init__(self, jobs: int = 1):
        self._stop, self._processes, self._lock = False, set(), threading.Lock()
        cores = sorted(os.sched_getaffinity(0)) if jobs > 1 and hasattr(os, "sched_getaffinity") else []
        self._shares = queue.SimpleQueue()
        for job in range(jobs):
            self._shares.put(cores[job::jobs] if len(cores) >= jobs else [])
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, self._pass_on)

    @property
    def stopped(self) -> bool:
        """Whether a signal arrived."""
        return self._stop

    def _pass_on(self, number, frame):
        self._stop = True
        for process in tuple(self._processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)

    def _start(self, line, file, cores):
        # set here for the child to inherit: a function run in the child between fork and exec is not safe with threads
        before = os.sched_getaffinity(0) if cores else None
        if cores:
            os.sched_setaffinity(0, cores)
        try:
            # a session of its own: Ctrl-C of the terminal comes through this process alone
            return subprocess.Popen(line, stdout=file, stderr=file, start_new_session=True)
        finally:
            if cores:
                os.sched_setaffinity(0, before)

    def __call__(self, line: list[str], log: Path) -> bool:
        """Whether the command ran to its end. Raises UserError where it failed; what it said is in `log`."""
        if self._stop:
            return False
        log.parent.mkdir(parents=True, exist_ok=True)
        cores = self._shares.get()
        try:
            with open(log, "ab") as file:
                process = self._start(line, file, cores)
                with self._lock:
                    self._processes.add(process)
                if self._stop:  # the signal came in between
                    process.send_signal(signal.SIGTERM)
                status = process.wait()
        finally:
            self._shares.put(cores)
        with self._lock:
            self._processes.discard(process)
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


def carry_out(config, workdir: Path, rows: dict, run: Runner, lock, name: str, seed: int) -> bool:
    """Trains and evaluates one run, as far as that has not been done: whether it came to its end."""
    if run.stopped:  # what has not begun leaves no trace
        return False
    row, log = rows[name], workdir / f"{name}-{seed}.log"
    if row["train"]:
        line = training(workdir, rows, name, seed)
        unchanged(workdir / f"{name}-{seed}.training", line)
        if not (place(workdir, name, seed) / "model" / "manifest.json").is_file():
            print(f"{name}, seed {seed}: training", flush=True)
            if not run(line, log):
                return False
    if row["evaluate"]:
        line, out = evaluation(workdir, rows, name, seed, config.evaluate)
        unchanged(workdir / f"{name}-{seed}.evaluation", line)
        if not out.is_file():
            print(f"{name}, seed {seed}: evaluating", flush=True)
            if not run(line, log):
                return False
            with lock:
                cli.write(workdir / "table.md", table(workdir, rows, config.baseline))
    return True


def main(argv):
    if any(arg == "--workdir" or arg.startswith("--workdir=") for arg in argv):
        config, workdir = cli.parse_config(argv, __doc__)
    else:
        config, _ = cli.parse_config(argv, __doc__, workdir=False)
        workdir = Path(config.workdir)
    rules.check_settings(config, {"jobs": rules.whole(1)})
    rows = rows_of(config)
    if config.baseline and config.baseline not in rows:
        raise UserError(f"config.baseline {config.baseline!r} is no row: its name is one of {', '.join(rows)}")
    for name, row in rows.items():
        if row["train"] and not Path(row["train"][1]).is_file():
            raise UserError(f"row {name}: there is no file {row['train'][1]}")
    work = functools.partial(carry_out, config, workdir, rows, Runner(config.jobs), threading.Lock())
    under_way = {}

    def after(name, seed):
        # What it waits for stands before it in the queue, so that it has begun: no run waits for one that cannot start.
        return all(under_way[other].result() for other in needed(rows, name, seed)) and work(name, seed)

    with concurrent.futures.ThreadPoolExecutor(config.jobs) as pool:
        for name, row in rows.items():
            for seed in range(row["seeds"]):
                under_way[name, seed] = pool.submit(after, name, seed)
        try:
            finished = all([run.result() for run in under_way.values()])
        except UserError:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    if not finished:
        print("stopped; the same command goes on from here", file=sys.stderr)
        sys.exit(143)
    print(table(workdir, rows, config.baseline), end="")


if __name__ == "__main__":
    cli.run(main)
