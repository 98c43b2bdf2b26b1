"""The past signals most like one, by what the model saw of them."""

from dataclasses import dataclass

import numpy as np

from ml.encoder import Columns, Encoder


@dataclass(frozen=True, slots=True)
class Neighbour:
    """`place` in the columns that were given; `distance` as below."""

    place: int
    distance: float


def nearest(encoder: Encoder, row: Columns, past: Columns, most: int) -> list[Neighbour]:
    """The rows of `past` (columns of n values) closest to `row` (columns of one), the closest first.

    Distance is Euclidean over encoded columns: standard deviations of the training part, an unknown value at its mean.
    """
    one, others = (np.nan_to_num(encoder.encode(columns).astype(np.float64)) for columns in (row, past))
    distance = np.sqrt(((others - one) ** 2).sum(axis=1))
    return [Neighbour(int(place), float(distance[place])) for place in np.argsort(distance, kind="stable")[:most]]
