"""The rules of risk and exit, as pure functions of what is known now. Prices in dollars, P/L and R after fees."""

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from functools import cache
from math import floor, isfinite
from typing import Any, NamedTuple

from positions.words import SIGN, ExitReason, Rule, Side, VolumeReference


@dataclass(frozen=True, slots=True)
class ExitSettings:
    """The exit rules' switches and numbers, as they stand at one moment; units in the live settings' help."""

    low_volume: bool = True
    low_volume_fraction: float = 0.5
    low_volume_bars: int = 5
    low_volume_reference: str = VolumeReference.ENTRY
    time_limit: bool = True
    time_limit_minutes: float = 15.0
    momentum_reversal: bool = True
    breakeven: bool = True
    breakeven_at_r: float = 1.0
    flatten_minutes: float = 5.0
    cost_per_share: float = 0.01

    @property
    def hash(self) -> str:
        """Twelve hex digits that name these settings on a trade."""
        return _hash(self)


@cache
def _hash(settings: ExitSettings) -> str:
    return hashlib.sha256(json.dumps(asdict(settings), sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class RiskSettings:
    """How much an entry may risk and when entries are blocked."""

    risk_per_trade: float = 0.005
    max_notional: float = 0.2
    max_open_positions: int = 10
    daily_loss_limit: float = 0.03
    max_orders_per_minute: int = 60
    cooldown_losses: int = 4
    cooldown_minutes: float = 30.0


@dataclass(frozen=True, slots=True)
class DayView:
    """What the protections need to know. `losses` in a row until now, the last of them at `last_loss_at`; `orders`
    were sent within the last minute."""

    now: datetime
    halted: bool
    open_positions: int
    pnl: float
    equity: float
    orders: int
    losses: int
    last_loss_at: datetime | None


# Views are made of every open trade in every tick: a named tuple is made in a third of a frozen dataclass's time.


class PositionView(NamedTuple):
    """What the rules need to know of an open trade. `risk` is R in dollars a share."""

    side: Side
    entry: float
    stop: float
    target: float
    risk: float
    entered_at: datetime
    entry_volume: float | None
    breakeven_set: bool

    def profit(self, price: float, cost_per_share: float = 0.0) -> float:
        """Dollars a share if closed at `price`, after entry's and exit's costs."""
        return SIGN[self.side] * (price - self.entry) - 2 * cost_per_share


class MarketView(NamedTuple):
    """A symbol's last completed bar and its momentum; NaN where not known."""

    high: float
    low: float
    close: float
    macd_histogram: float
    previous_macd_histogram: float


@dataclass(frozen=True, slots=True)
class ExitDecision:
    rule: ExitReason
    evidence: dict[str, Any]


def check_volume(mean_volume: float, reference: float | None, settings: ExitSettings) -> ExitDecision | None:
    """Volume has dried up: the mean of the last bars is below a fraction of the reference; either may be NaN, which
    says nothing."""
    if not settings.low_volume or not reference or not isfinite(mean_volume) or not isfinite(reference):
        return None
    fraction = mean_volume / reference
    if fraction >= settings.low_volume_fraction:
        return None
    return ExitDecision(
        ExitReason.LOW_VOLUME,
        {
            "mean_volume": mean_volume,
            "reference": settings.low_volume_reference,
            "reference_volume": reference,
            "fraction": fraction,
            "limit": settings.low_volume_fraction,
            "bars": settings.low_volume_bars,
        },
    )


def check_time(
    position: PositionView, market: MarketView, settings: ExitSettings, now: datetime
) -> ExitDecision | None:
    """The trade had its time and is not above zero after costs."""
    minutes = (now - position.entered_at).total_seconds() / 60
    profit = position.profit(market.close, settings.cost_per_share)
    if not settings.time_limit or minutes < settings.time_limit_minutes or profit > 0:
        return None
    return ExitDecision(
        ExitReason.TIME_LIMIT,
        {
            "minutes": minutes,
            "limit_minutes": settings.time_limit_minutes,
            "profit_per_share": profit,
            "close": market.close,
        },
    )


def check_momentum(position: PositionView, market: MarketView, settings: ExitSettings) -> ExitDecision | None:
    """MACD crossed its signal line against the trade on the last completed bar."""
    sign = SIGN[position.side]
    before, now = sign * market.previous_macd_histogram, sign * market.macd_histogram
    if not settings.momentum_reversal or not (before >= 0 > now):
        return None
    return ExitDecision(
        ExitReason.MOMENTUM_REVERSAL,
        {"macd_histogram": market.macd_histogram, "previous_macd_histogram": market.previous_macd_histogram},
    )


def check_target(position: PositionView, market: MarketView) -> ExitDecision | None:
    """The completed bar reached the target; the stop, had it been touched too, has filled at the broker already."""
    best = market.high if position.side is Side.LONG else market.low
    if SIGN[position.side] * (best - position.target) < 0:
        return None
    return ExitDecision(ExitReason.TARGET, {"target": position.target, "high": market.high, "low": market.low})


def check_session_close(minutes_to_close: float, settings: ExitSettings) -> ExitDecision | None:
    """The session is about to end; nothing is held overnight."""
    if minutes_to_close > settings.flatten_minutes:
        return None
    return ExitDecision(
        ExitReason.SESSION_CLOSE,
        {"minutes_to_close": minutes_to_close, "flatten_minutes": settings.flatten_minutes},
    )


class Nearness(NamedTuple):
    """How far a rule has come on its way to act: from 0, not begun, to 1, there."""

    rule: Rule
    share: float


def shares_of_ways(
    position: PositionView,
    close: float,
    mean_volume: float,
    reference: float | None,
    settings: ExitSettings,
    now: datetime,
) -> dict[Rule, float]:
    """How far each exit rule has come, 1 where it is there: stop by how much of one R is left to it, target by how much
    of its distance is made, time_limit by its time while there is no profit, low_volume by its limit over the fraction
    there is. momentum_reversal is a crossing and has no way to go; NaN volumes say nothing."""
    profit, sign = position.profit(close), SIGN[position.side]
    ways = {
        Rule.STOP: 1 - sign * (close - position.stop) / position.risk,
        Rule.TARGET: profit / (sign * (position.target - position.entry)),
    }
    if settings.time_limit and position.profit(close, settings.cost_per_share) <= 0:
        ways[Rule.TIME_LIMIT] = (now - position.entered_at).total_seconds() / 60 / settings.time_limit_minutes
    if settings.low_volume and reference and mean_volume > 0 and isfinite(reference):
        ways[Rule.LOW_VOLUME] = settings.low_volume_fraction * reference / mean_volume
    return ways


def share_of_breakeven(position: PositionView, close: float, settings: ExitSettings) -> float | None:
    """How far breakeven has come, 1 where it is there: its profit over `breakeven_at_r` R. None where it is off or the
    stop has been moved."""
    if not settings.breakeven or position.breakeven_set:
        return None
    return position.profit(close) / (settings.breakeven_at_r * position.risk)


def nearest_rule(
    position: PositionView,
    close: float,
    mean_volume: float,
    reference: float | None,
    settings: ExitSettings,
    now: datetime,
) -> Nearness:
    """The rule that has come furthest (shares_of_ways, share_of_breakeven)."""
    ways = shares_of_ways(position, close, mean_volume, reference, settings, now)
    breakeven = share_of_breakeven(position, close, settings)
    if breakeven is not None:
        ways[Rule.BREAKEVEN] = breakeven
    rule = max(ways, key=lambda each: ways[each])
    return Nearness(rule, min(1.0, max(0.0, ways[rule])))


def breakeven_stop(position: PositionView, close: float, settings: ExitSettings) -> Decimal | None:
    """Where the stop belongs once the trade is `breakeven_at_r` R ahead: entry plus round-trip costs, None before.

    On the tick, rounded so that the stop still pays the costs; never looser than the stop there is and never at or
    past the market.
    """
    if not settings.breakeven or position.breakeven_set:
        return None
    if position.profit(close) < settings.breakeven_at_r * position.risk:
        return None
    sign = SIGN[position.side]
    level = position.entry + sign * 2 * settings.cost_per_share
    stop = round_to_tick(level, up=position.side is Side.LONG)
    tightens = sign * (float(stop) - position.stop) > 0
    inside = sign * (close - float(stop)) > 0
    return stop if tightens and inside else None


def tick_of(price: Decimal) -> Decimal:
    """What the price of an order is a multiple of: a cent from one dollar on, below a hundredth of one (Rule 612 of
    Regulation NMS)."""
    return Decimal("0.01") if price >= 1 else Decimal("0.0001")


def round_to_tick(price: float, *, up: bool) -> Decimal:
    exact = Decimal(repr(round(price, 8)))
    tick = tick_of(exact)
    return (exact / tick).to_integral_value(ROUND_CEILING if up else ROUND_FLOOR) * tick


def initial_stop(price: float, side: Side) -> Decimal:
    """The plan's stop on the tick, away from the market: below for a long, above for a short."""
    return round_to_tick(price, up=side is Side.SHORT)


def whole_shares(entry: float, stop: float, equity: float, buying_power: float, settings: RiskSettings) -> int:
    """Shares whose loss at the stop is the risk per trade, within the largest notional and the buying power."""
    by_risk = equity * settings.risk_per_trade / abs(entry - stop)
    by_notional = min(equity * settings.max_notional, buying_power) / entry
    return max(0, floor(min(by_risk, by_notional)))


def blocked(day: DayView, settings: RiskSettings) -> str:
    """Why no entry may be made now; "" if one may."""
    if day.halted:
        return "halted"
    if day.open_positions >= settings.max_open_positions:
        return "max_open_positions"
    if day.pnl <= -settings.daily_loss_limit * day.equity:
        return "daily_loss_limit"
    if day.orders >= settings.max_orders_per_minute:
        return "max_orders_per_minute"
    if cooling_until(day.losses, day.last_loss_at, settings) > day.now:
        return "cooldown"
    return ""


def cooling_until(losses: int, last_loss_at: datetime | None, settings: RiskSettings) -> datetime:
    """When entries are allowed again after so many losses in a row; long ago where they are not blocked."""
    if not settings.cooldown_losses or last_loss_at is None or losses < settings.cooldown_losses:
        return datetime.min.replace(tzinfo=UTC)
    return last_loss_at + timedelta(minutes=settings.cooldown_minutes)


def net_pnl(side: Side, entry: Decimal, exit_price: Decimal, quantity: int, fees: Decimal) -> Decimal:
    """Dollars after fees."""
    return SIGN[side] * (exit_price - entry) * quantity - fees
