"""What a model may learn from: a book's closed trades joined with what was known at their signals, as arrays."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.evaluation import Rows

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class TrainingData:
    """The n closed trades, real and on paper, of a book whose features are complete and whose label is known, by signal
    time.

    `columns` hold each model feature (n,), NaN or None where unknown: the X of a learner once encoded. `won` (n,) is
    its y; `r` the result in R after costs, NaN where unknown; `start` and `end` the signal and the moment the label was
    known, UTC; `shadow` (n,) marks signals that were not traded but followed on paper; `feeds` counts rows by feed.
    `missing` says how many rows lack a feature; `n_incomplete`, `n_other_feature_set` and `n_unlabelled` the closed
    trades left out; `exit_settings` how many trades each set of exit rules closed.
    """

    columns: Mapping[str, NDArray[Any]]
    won: Flags
    signal_key: NDArray[np.str_]
    session: NDArray[np.datetime64]
    start: NDArray[np.datetime64]
    end: NDArray[np.datetime64]
    r: Floats
    p_geometry: Floats
    shadow: Flags
    data_hash: str
    n_incomplete: int
    n_other_feature_set: int
    n_unlabelled: int
    missing: Mapping[str, int]
    exit_settings: Mapping[str, int]
    feeds: Mapping[str, int]

    def columns_of(self, rows: NDArray[np.intp]) -> dict[str, NDArray[Any]]:
        return {name: values[rows] for name, values in self.columns.items()}

    def results_of(self, rows: NDArray[np.intp]) -> Rows:
        return Rows(self.won[rows], self.p_geometry[rows], self.r[rows], self.session[rows])

    def remarks(self) -> list[str]:
        """What whoever reads the figures must know of the rows, a sentence each."""
        left_out = [
            f"{n:,} closed trades were left out: {why}."
            for n, why in (
                (self.n_incomplete, "they have no complete feature row, or one with a number that is not finite"),
                (self.n_other_feature_set, "their features were computed by other definitions"),
                (self.n_unlabelled, "what became of their plan is not known"),
            )
            if n
        ]
        if self.shadow.any():
            left_out.append(
                f"{int(self.shadow.sum()):,} of the {len(self.shadow):,} rows are signals not taken and followed on "
                "paper by their plans."
            )
        if len(self.exit_settings) > 1:
            left_out.append(
                f"The trades were closed under {len(self.exit_settings)} different sets of exit rules; "
                "what a WIN is differs between them."
            )
        if len(self.feeds) > 1:
            left_out.append(f"The rows come from {len(self.feeds)} feeds, whose volumes cannot be compared.")
        return left_out
