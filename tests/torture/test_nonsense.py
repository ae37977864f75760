"""Command lines and records that make no sense: a line, and nothing taken."""

import pytest
from torture import records, settings


@pytest.mark.parametrize("part", [settings, records], ids=["settings", "records"])
def test_nonsense(part):
    trials = list(part.trials(lambda seed: False))
    assert len(trials) == part.COUNT
    faults = [f"{result}: {what}" for _, result, what in trials if result in ("traceback", "silent")]
    assert not faults, "\n".join(faults)
