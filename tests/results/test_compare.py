"""Comparisons of evaluations: paired, clustered by prompt, and over runs."""

import numpy as np
import pytest
from commands import refused
from evaluations import evaluation

from janus_jax import compare
from janus_jax.results.compare import across, names_of, paired, pooled


def test_paired_and_pooled_by_hand():
    base = {("a", 0): (0.0, 0.0), ("a", 1): (0.0, 1.0), ("b", 0): (1.0, 1.0)}
    one = {("a", 0): (1.0, 1.0), ("a", 1): (1.0, 1.0), ("b", 0): (1.0, 1.0)}
    two = {("a", 0): (0.0, 1.0), ("a", 1): (1.0, 1.0), ("b", 0): (0.0, 0.0)}
    # differences of the first picture: 1, 1, 0; sums of residuals 2/3 and -2/3
    mean, error = paired(base, one, 0)
    assert mean == pytest.approx(2 / 3) and error == pytest.approx(np.sqrt(2 * (4 / 9) * 2) / 3)
    # mean over the two runs: (1 + 0) / 2, (1 + 1) / 2, (0 - 1) / 2
    assert pooled(base, [one, two], 0)[0] == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="different prompts"):
        pooled(base, [one, {("a", 0): (0.0, 0.0)}], 0)


def test_across():
    assert across([0.5, 0.7]) == "0.600 ± 0.100"
    assert across([0.5]) == "0.500" and across([None]) == "–"


def test_tables(tmp_path, capsys):
    base = evaluation(tmp_path / "sft.json", {("a", 0): [False, True], ("b", 0): [False, False]})
    runs = [
        evaluation(tmp_path / f"rl{n}.json", {("a", 0): [True], ("b", 0): [False, n == 0]})  # right pictures, or none
        for n in range(2)
    ]
    compare.main(["--baseline", str(base), *map(str, runs)])
    table = capsys.readouterr().out
    assert "| sft | 0.000 ± 0.000 | 0.500 ± 0.500 |" in table
    assert "| rl1 | 0.500 ± 0.500 | 0.500 ± 0.500 |" in table
    assert "| **mean of 2** | **0.500 ± 0.000** | **0.750 ± 0.250** |" in table
    assert "| mean of 2 − sft, error over runs | +0.500 ± 0.000 | +0.250 ± 0.250 |" in table
    assert "| spoil rate | – | 0.000 ± 0.000 |" in table  # nothing right to be spoilt


def test_not_an_evaluation(tmp_path):
    (tmp_path / "x.json").write_text("{}")
    assert "janus_jax.evaluate" in refused(compare.main, "--baseline", tmp_path / "x.json", tmp_path / "x.json")


def test_names_are_those_of_the_files():
    assert names_of(["runs/base", "a/rl0/model", "b/rl1/model"]) == ["runs/base", "rl0/model", "rl1/model"]
    assert names_of(["runs/sft", "runs/rl0", "runs/rl0"]) == ["sft", "rl0", "rl0"]
    assert names_of(["x", "y/x"]) == ["x", "y/x"]


def test_one_run_has_no_mean(tmp_path, capsys):
    base, run = (evaluation(tmp_path / f"{name}.json", {("a", 0): [True], ("b", 0): [False]}) for name in ("x", "y"))
    compare.main(["--baseline", str(base), str(run)])
    table = capsys.readouterr().out
    assert "| category | x first | x final | x Yes to wrong | y first | y final | y Yes to wrong |" in table
    assert not {"SFT", "RL", "mean", "seeds"} & set(table.split()) and "**" not in table
