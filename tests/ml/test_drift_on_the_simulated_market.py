"""A market without drift by its construction, through the whole program: real features, their real dependence."""

import numpy as np
import pytest
from numpy.typing import NDArray

from ml.drift import compare, reference_of
from ml.features import MODEL_FEATURES, Kind
from ml.models import TradeFeatures
from positions.market.feeds.simulated import SimulatedMarket
from tests.runs import run

NAMES = [feature.name for feature in MODEL_FEATURES]
TRAINING, BETWEEN, LIVE_ROWS = 60, 10, 2_000  # sessions, sessions, signals


@pytest.mark.slow
@pytest.mark.django_db
def test_at_most_one_of_a_dozen_checks_alarms_and_each_finds_a_shift():
    run(SimulatedMarket(128, seed=2))
    taken = TradeFeatures.objects.filter(complete=True, taken=True).order_by("signal_at")
    session, *table = zip(*taken.values_list("session", *NAMES), strict=True)
    days = np.array(session, dtype="datetime64[D]")
    columns: dict[str, NDArray[np.generic]] = {
        feature.name: np.array(values, dtype=np.float64 if feature.kind is Kind.CONTINUOUS else object)
        for feature, values in zip(MODEL_FEATURES, table, strict=True)
    }
    sessions, checks, alarmed = np.unique(days), 0, []
    for first in range(0, len(sessions) - TRAINING - BETWEEN - 10, 4):
        trained = np.flatnonzero((days >= sessions[first]) & (days < sessions[first + TRAINING]))
        live = np.flatnonzero(days >= sessions[first + TRAINING + BETWEEN])[:LIVE_ROWS]
        reference = reference_of({name: values[trained] for name, values in columns.items()}, days[trained])
        now = {name: values[live] for name, values in columns.items()}
        found = compare(reference, now, days[live])
        alarmed += [name for name, comparison in found.items() if comparison.alarm][:1]
        shifted = compare(reference, {**now, "adx14": now["adx14"] + 15}, days[live])
        assert shifted["adx14"].alarm
        checks += 1
    assert checks >= 12
    assert len(alarmed) <= 1, alarmed
