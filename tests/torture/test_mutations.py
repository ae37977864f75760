"""No damage to a model folder ends in a traceback or goes unseen."""

import pytest
from torture import mutations


@pytest.mark.slow
def test_damaged_models():
    faults = []
    counts = mutations.run(tell=faults.append)
    assert sum(counts.values()) == mutations.COUNT and counts["refused"] > 100
    assert not faults, "\n".join(faults)
