"""Sharpe, Sortino and drawdown are those of empyrical-reloaded and of quantstats."""

import warnings

import numpy as np
import pandas as pd
import pytest

from ml.statistics import daily_sharpe, max_drawdown, sortino

SEEDS = range(100)


def returns(seed: int) -> np.ndarray:
    """20 to 400 sessions, a fifth of them without a trade, the first one lost in every other series."""
    rng = np.random.default_rng(seed)
    drawn = rng.standard_t(4, rng.integers(20, 400)) * 0.01 + rng.normal(0, 0.001)
    drawn[rng.random(len(drawn)) < 0.2] = 0.0
    drawn[0] = 0.01 * (-1) ** seed
    return drawn


@pytest.mark.parametrize("seed", SEEDS)
def test_as_empyrical_has_them(seed: int) -> None:
    empyrical = pytest.importorskip("empyrical", reason="empyrical-reloaded is in the dev group")
    series = returns(seed)
    assert daily_sharpe(series) == pytest.approx(empyrical.sharpe_ratio(series), rel=1e-12, abs=1e-12)
    assert sortino(series) == pytest.approx(empyrical.sortino_ratio(series), rel=1e-12, abs=1e-12)
    assert max_drawdown(series) == pytest.approx(-empyrical.max_drawdown(series), rel=1e-12, abs=1e-12)


@pytest.fixture(scope="module")
def quantstats():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the many packages that it imports
        return pytest.importorskip("quantstats.stats", reason="quantstats is in the dev group")


@pytest.mark.parametrize("seed", SEEDS)
def test_as_quantstats_has_them(seed: int, quantstats) -> None:
    drawn = returns(seed)
    series = pd.Series(drawn, index=pd.bdate_range("2024-01-02", periods=len(drawn)))
    assert daily_sharpe(drawn) == pytest.approx(quantstats.sharpe(series), rel=1e-12, abs=1e-12)
    assert sortino(drawn) == pytest.approx(quantstats.sortino(series), rel=1e-12, abs=1e-12)
    assert max_drawdown(drawn) == pytest.approx(-quantstats.max_drawdown(series), rel=1e-12, abs=1e-12)
