"""No damage to a model folder ends in a traceback or goes unseen."""

import pytest
from torture import mutations


@pytest.mark.slow
def test_damaged_models():
    trials = list(mutations.trials(lambda seed: False))
    results = [result for _, result, _ in trials]
    assert len(results) == mutations.COUNT and results.count("refused") > 100
    faults = [what for _, result, what in trials if result in ("traceback", "silent")]
    assert not faults, "\n".join(faults)
