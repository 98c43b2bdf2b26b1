"""Where a trade pays: the probability above which a plan is expected to earn after costs, and what it does there."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ml.evaluation import SessionBootstrap
from ml.words import Decision

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

LEAST_OF_A_KIND = 10  # wins and losses whose R is known, below which nothing is said
SMALLEST_WIN = 0.05  # R that a win is taken to bring at the least


@dataclass(frozen=True, slots=True)
class Payoff:
    """What wins and losses brought in R after costs: a win `win` + `win_per_reward` times the plan's reward to risk, a
    loss `loss` (above 0). `band` is the standard error of the threshold, within which nothing is claimed."""

    win: float
    win_per_reward: float
    loss: float
    band: float

    def thresholds(self, reward_to_risk: Floats) -> Floats:
        """P(win) at which p W - (1 - p) L = 0, so L / (W + L), of plans (n,); NaN for NaN."""
        win = np.maximum(self.win + self.win_per_reward * reward_to_risk, SMALLEST_WIN)
        threshold: Floats = self.loss / (win + self.loss)
        return threshold

    def threshold(self, reward_to_risk: float) -> float:
        """The same for one plan, without an array."""
        return self.loss / (max(self.win + self.win_per_reward * reward_to_risk, SMALLEST_WIN) + self.loss)

    def decide(self, p_win: float, reward_to_risk: float) -> Decision:
        """Take or skip, or abstain within the band and for a plan without a distance."""
        over = p_win - self.threshold(reward_to_risk)
        if over > self.band:
            return Decision.TAKE
        return Decision.SKIP if over < -self.band else Decision.ABSTAIN

    def lets_through(self, p_win: Floats, reward_to_risk: Floats) -> Flags:
        """Which of n signals are not skipped; what is abstained from goes on."""
        skipped: Flags = p_win - self.thresholds(reward_to_risk) < -self.band
        return ~skipped

    def to_dict(self) -> dict[str, float]:
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Self:
        return cls(**stored)


def fit_payoff(
    won: Flags, r: Floats, reward_to_risk: Floats, session: NDArray[np.datetime64], seed: int
) -> Payoff | None:
    """Learned from n trades whose results in R are net, so that costs are in all of it. None with too few to say.

    What a win brings is a straight line over the plan's reward to risk (least squares), what a loss brings its mean;
    the band is the spread of L / (W + L) at the mean plan when whole sessions are drawn again.
    """
    known = np.isfinite(r) & np.isfinite(reward_to_risk)
    wins, losses = known & won, known & ~won
    if min(wins.sum(), losses.sum()) < LEAST_OF_A_KIND:
        return None
    loss = -float(r[losses].mean())
    if loss <= 0:
        return None
    slope, base = (float(value) for value in np.polyfit(reward_to_risk[wins], r[wins], 1))
    bootstrap = SessionBootstrap(session, seed)
    with np.errstate(invalid="ignore", divide="ignore"):
        win_drawn = bootstrap.sums(np.where(wins, r, 0.0)) / bootstrap.sums(wins)
        loss_drawn = -bootstrap.sums(np.where(losses, r, 0.0)) / bootstrap.sums(losses)
        drawn = loss_drawn / (win_drawn + loss_drawn)
    return Payoff(base, slope, loss, float(np.nanstd(drawn)))
