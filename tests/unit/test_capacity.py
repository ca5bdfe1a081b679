"""bench/capacity.py: the simulation agrees with what can be worked out by hand."""

from __future__ import annotations

import importlib
import sys

import pytest
from support.paths import ROOT

sys.path.append(str(ROOT / "bench"))
capacity = importlib.import_module("capacity")
COSTS = capacity.Costs(server=0.02, operator=0.004, waiting_mib=0.002)


@pytest.mark.parametrize(
    ("number", "limit", "seconds", "cores", "last"),
    [
        # nothing but the API server: 100 a second on two cores
        (1000, 1000, 60, 2, 10.0),
        # nothing but the operator: 250 a second
        (1000, 1000, 60, 32, 4.0),
        # nothing but the limit: ten rounds of a minute
        (1000, 100, 60, 32, 9 * 60.4 + 0.4),
    ],
)
def test_each_bound_by_itself(number: int, limit: int, seconds: float, cores: int, last: float) -> None:
    assert capacity.last_start(number, limit, seconds, cores, COSTS) == pytest.approx(last, rel=0.01)
