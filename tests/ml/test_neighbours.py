from dataclasses import replace

import numpy as np
import pytest

from ml.encoder import Encoder
from ml.neighbours import nearest
from tests.ml.synthetic import training_data


@pytest.fixture(scope="module")
def columns():
    return training_data(3, sessions=4, per_session=25).columns


def one(columns, place):
    return {name: [values[place]] for name, values in columns.items()}


def test_the_nearest_is_itself_and_distances_grow(columns):
    found = nearest(Encoder.fit(columns), one(columns, 7), columns, 5)
    assert found[0].place == 7
    assert found[0].distance == 0
    assert [each.distance for each in found] == sorted(each.distance for each in found)
    assert len(found) == 5


def test_distance_is_in_standard_deviations_of_the_training_part(columns):
    encoder = Encoder.fit(columns)
    place = encoder.names.index("rsi14")
    twice = replace(encoder, scale=tuple(s * (2 if i == place else 1) for i, s in enumerate(encoder.scale)))
    other = {**columns, "rsi14": np.asarray(columns["rsi14"], dtype=float) + encoder.scale[place]}
    assert nearest(encoder, one(columns, 0), {n: v[:1] for n, v in other.items()}, 1)[0].distance == pytest.approx(1)
    assert nearest(twice, one(columns, 0), {n: v[:1] for n, v in other.items()}, 1)[0].distance == pytest.approx(0.5)


def test_an_unknown_value_counts_as_the_mean(columns):
    encoder = Encoder.fit(columns)
    unknown = {**one(columns, 0), "rsi14": [np.nan]}
    mean = {**one(columns, 0), "rsi14": [encoder.mean[encoder.names.index("rsi14")]]}
    assert nearest(encoder, unknown, mean, 1)[0].distance == pytest.approx(0, abs=1e-6)
