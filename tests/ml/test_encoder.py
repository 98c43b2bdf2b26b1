"""The encoder: scikit-learn's numbers, and one row the same to the bit as a table."""

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from ml.encoder import CONTINUOUS, Encoder
from ml.features import MODEL_FEATURES
from tests.ml.synthetic import feature_columns

N = 400


@pytest.fixture(scope="module")
def columns():
    return feature_columns(np.random.default_rng(1), N)


@pytest.fixture(scope="module")
def encoder(columns):
    return Encoder.fit(columns)


def row_of(columns, index):
    return {name: values[index] for name, values in columns.items()}


def test_continuous_features_are_standardised_as_scikit_learn_does_and_nan_stays_nan(columns, encoder):
    raw = np.column_stack([columns[name] for name in CONTINUOUS])
    expected = StandardScaler().fit_transform(raw)
    np.testing.assert_allclose(encoder.encode(columns)[:, : len(CONTINUOUS)], expected, rtol=1e-6, atol=1e-6)
    assert np.isnan(expected).sum() > 0


def test_a_constant_or_wholly_unknown_feature_is_not_divided_by_zero(columns):
    encoder = Encoder.fit({**columns, "vix": np.full(N, 0.1), "streak": np.full(N, np.nan)})
    scale = dict(zip(encoder.names, encoder.scale, strict=True))
    assert (scale["vix"], scale["streak"]) == (1.0, 1.0)


def test_one_row_encodes_to_the_same_bits_as_its_line_of_the_table(columns, encoder):
    table = encoder.encode(columns)
    for index in range(N):
        assert encoder.encode_one(row_of(columns, index)).tobytes() == table[index].tobytes()


def test_every_model_feature_has_its_column_and_no_other_has(encoder):
    assert {name.partition("=")[0] for name in encoder.columns} == {feature.name for feature in MODEL_FEATURES}


def test_the_order_of_a_row_and_features_it_has_beside_do_not_matter(columns, encoder):
    row = row_of(columns, 3)
    shuffled = {"ema20": 187.2, **dict(reversed(row.items()))}
    assert encoder.encode_one(shuffled).tobytes() == encoder.encode_one(row).tobytes()


def test_a_missing_feature_is_an_error_and_not_a_zero(columns, encoder):
    row = row_of(columns, 3)
    del row["rsi14"]
    with pytest.raises(KeyError, match="rsi14"):
        encoder.encode_one(row)


@pytest.mark.parametrize("given", ["sideways", None, 3.0])
def test_an_unknown_category_is_a_row_of_zeros(columns, encoder, given):
    places = [i for i, column in enumerate(encoder.columns) if column.startswith("regime=")]
    one = encoder.encode_one({**row_of(columns, 3), "regime": given})
    table = encoder.encode({**columns, "regime": [given] * N})
    assert not one[0, places].any()
    assert not table[:, places].any()


def test_none_is_encoded_as_nan(columns, encoder):
    one = encoder.encode_one({**row_of(columns, 3), "vix": None})
    assert np.isnan(one[0, encoder.columns.index("vix")])


def test_what_is_stored_encodes_to_the_same_bits(columns, encoder):
    again = Encoder.from_dict(encoder.to_dict())
    assert again == encoder
    assert again.encode(columns).tobytes() == encoder.encode(columns).tobytes()


def test_fitting_looks_at_no_row_but_its_own(columns):
    half = {name: values[: N // 2] for name, values in columns.items()}
    altered = {
        name: np.concatenate([values[: N // 2], values[N // 2 :] * 9]) if name in CONTINUOUS else values
        for name, values in columns.items()
    }
    assert Encoder.fit(half) == Encoder.fit({name: values[: N // 2] for name, values in altered.items()})
