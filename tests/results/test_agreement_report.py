"""What is said of a judge's agreement: values, table and picture."""

import json

from janus_jax.results import agreement, agreement_report
from janus_jax.results.storyboard import FAINT, YES

P_YES = [0.9, 0.8, 0.4, 0.3, 0.2, 0.1]
RIGHT = [True, True, True, False, False, False]


def test_the_values_by_hand():
    got = agreement_report.report(P_YES, RIGHT, range(6), dev=([0.38, 0.34], [True, False]))
    assert json.loads(json.dumps(got)) == got
    assert (got["threshold"], got["accuracy"], got["balanced_accuracy"]) == (0.5, 0.83333, 0.83333)
    assert got["confusion"] == {"right": {"yes": 2, "no": 1}, "wrong": {"yes": 0, "no": 3}}
    assert got["ece"] == round((0.1 + 0.2 + 0.6 + 0.3 + 0.2 + 0.1) / 6, 5)
    assert got["reliability"][9] == {"from": 0.9, "to": 1.0, "n": 1, "p_yes": 0.9, "right": 1.0}
    assert got["reliability"][5] == {"from": 0.5, "to": 0.6, "n": 0, "p_yes": None, "right": None}
    fitted = got["fitted"]
    assert abs(fitted["threshold"] - 0.36) < 1e-9 and fitted["balanced_accuracy_dev"] == 1.0
    assert fitted["accuracy"] == 1.0 and fitted["confusion"]["right"] == {"yes": 3, "no": 0}


def test_what_is_not_known_is_none():
    got = agreement_report.report([0.9], [True], ["a"])
    assert got["balanced_accuracy"] is None and got["stderr"] == {"accuracy": None, "balanced_accuracy": None}
    assert "fitted" not in got and "balanced unknown" in agreement_report.table(got)


def test_the_table():
    got = agreement_report.report(P_YES, RIGHT, range(6), dev=([0.38, 0.34], [True, False]))
    lines = agreement_report.table(got).splitlines()
    assert lines[1].startswith("Yes from P(yes) = 0.5: accuracy 0.833 ± 0.167, balanced 0.833 ± ")
    assert [line.split() for line in lines[2:5]] == [
        ["said", "yes", "said", "no"],
        ["right", "2", "1"],
        ["wrong", "0", "3"],
    ]
    assert lines[5].startswith("Yes from P(yes) = 0.36 (fitted): accuracy 1.000")


def test_the_curve_is_drawn_where_it_lies():
    """One bin with 0.25 right and mean P(yes) 0.75; the diagonal goes through both corners."""
    board = agreement_report.draw(agreement.reliability([0.75] * 4, [True, False, False, False]), "a judge")
    side, left, top = agreement_report.SIDE, agreement_report.LEFT, agreement_report.TOP
    assert board.getpixel((left + 3 * side // 4, top + 3 * side // 4)) == YES
    assert board.getpixel((left + side // 4, top + 3 * side // 4)) == FAINT
    assert board.getpixel((left + side // 4, top + side // 4)) != YES
