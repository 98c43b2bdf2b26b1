"""A simulated market: no account, no network, the same bytes for the same arguments."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta

import numpy as np
from numpy.typing import NDArray

from positions.market.bars import Floats, SessionBars, Universe
from positions.market.calendar import Session, sessions_between
from positions.market.feeds import VixHistory
from positions.words import Feed

#: Invented symbols: X, the sector's letter, the stock's letter. X and the sector's letter is its ETF, XX the index.
SECTORS = {
    "T": "Information Technology",
    "F": "Financials",
    "H": "Health Care",
    "C": "Consumer Discretionary",
    "S": "Consumer Staples",
    "I": "Industrials",
    "E": "Energy",
    "U": "Utilities",
}
STOCKS = "ABCDEF"
INDEX = "XX"

#: The last simulated day unless another is asked for; the 33 sessions up to it have two holidays and two early closes.
LAST_DAY = date(2024, 12, 31)
MINUTE = timedelta(minutes=1)
FULL_SESSION = 390

STORM_BEGINS, STORM_ENDS = 0.08, 0.25
CALM_VOLATILITY, STORMY_VOLATILITY = 0.007, 0.019  # of the market factor, a day
DAY_PERSISTENCE, DAY_NOISE = 0.9, 0.10
MINUTE_PERSISTENCE, MINUTE_NOISE = 0.97, 0.07
SECTOR_VOLATILITY = 0.005
OVERNIGHT_SHARE = 0.3  # of a day's variance
VIX_PREMIUM, VIX_PERSISTENCE = 1.15, 0.6  # over realised volatility; a close keeps this much of the one before
HALT_CHANCE = 0.004  # a stock and calm session
HALT_MINUTES = (5, 15)
SHARES_A_TRADE = 60.0
CENT = 0.01


class SimulatedMarket:
    """Seeded 1-minute sessions of 48 stocks in 8 sectors, their sector ETFs, an index and VIX (a `ReplayFeed`).

    What structure there is: a market, a sector and an own factor move each price; calm and stormy spells follow one
    another; volatility clusters from day to day and from minute to minute; it and volume are U-shaped over the session
    (over the shortened one on early closes); volume grows with volatility and the size of the move; sessions open with
    gaps; now and then a stock is halted for 5 to 15 minutes and reopens with a jump; thin stocks have minutes without a
    trade. VIX closes follow the volatility of the last days.

    What there is not: the sign of a return is independent of everything before it. No rule has an edge here before
    costs, and a model that seems to know more than a plan's geometry and the volatility has found noise or a leak.

    `warm_up` sessions come first with the flag False. Without `last_day` the sessions end on 2024-12-31. Each session
    draws from its own child seed and is made when it is asked for. Raises ValueError where a number of sessions is
    not positive (`warm_up` may be 0) or reaches before the exchange calendar.
    """

    def __init__(self, sessions: int, seed: int, warm_up: int = 3, last_day: date | None = None) -> None:
        if sessions < 1 or warm_up < 0:
            raise ValueError(f"give at least 1 session and no negative warm-up, not {sessions} and {warm_up}")
        self.name = Feed.SIMULATED
        self.length = MINUTE
        self.universe = _universe()
        self._warm_up = warm_up
        self._calendar = _last_sessions(sessions + warm_up, last_day or LAST_DAY)
        start, days, *self._seeds = np.random.SeedSequence(seed).spawn(2 + len(self._calendar))
        self._start = _start(np.random.default_rng(start))
        self._weather = _weather(np.random.default_rng(days), len(self._calendar))
        eve = self._calendar[0].day - timedelta(days=1)
        closes = (eve, *(session.day for session in self._calendar))
        self.vix: VixHistory | None = VixHistory(closes, self._weather.vix, "simulated")

    def sessions(self) -> Iterator[tuple[SessionBars, bool]]:
        state = self._start
        for number, session in enumerate(self._calendar):
            rng = np.random.default_rng(self._seeds[number])
            values, state = _session(rng, state, self._weather, number, (session.close - session.open) // MINUTE)
            yield SessionBars(session, MINUTE, self.universe, values), number >= self._warm_up


@dataclass(frozen=True, slots=True)
class _Weather:
    """The market factor's volatility of each day, which days are stormy, and VIX closes from the eve of the first."""

    volatility: Floats
    stormy: NDArray[np.bool_]
    vix: Floats


@dataclass(frozen=True, slots=True)
class _Market:
    """What each symbol is like (the first four, fixed) and where it stands (carried from session to session).

    Arrays over symbols: exposure to the market and to the own sector, volatility a day of its own, shares a minute;
    log price and the deviation of log volatility from the day's.
    """

    beta: Floats
    sector: NDArray[np.int64]
    sector_beta: Floats
    own_volatility: Floats
    volume: Floats
    log_price: Floats
    restlessness: Floats


def _universe() -> Universe:
    rows = [(f"X{letter}{stock}", name, f"X{letter}", True) for letter, name in SECTORS.items() for stock in STOCKS]
    rows += [(f"X{letter}", name, f"X{letter}", False) for letter, name in SECTORS.items()]
    rows.append((INDEX, "", "", False))
    symbols, sectors, etfs, tradable = zip(*rows, strict=True)
    return Universe(symbols, sectors, etfs, tradable, index=len(rows) - 1)


def _last_sessions(count: int, last_day: date) -> list[Session]:
    reach = timedelta(days=count * 365 // 245 + 14)  # a year has 250 to 253 sessions
    return sessions_between(last_day - reach, last_day)[-count:]


def _start(rng: np.random.Generator) -> _Market:
    sectors, stocks = len(SECTORS), len(SECTORS) * len(STOCKS)
    sector_market = rng.uniform(0.7, 1.3, sectors)
    of_stock = np.repeat(np.arange(sectors), len(STOCKS))
    etfs_and_index = np.zeros(sectors + 1)
    return _Market(
        beta=np.concatenate([sector_market[of_stock] * rng.uniform(0.8, 1.25, stocks), sector_market, [1.0]]),
        sector=np.concatenate([of_stock, np.arange(sectors), [0]]),
        sector_beta=np.concatenate([rng.uniform(0.6, 1.4, stocks), np.ones(sectors), [0.0]]),
        own_volatility=np.concatenate([rng.uniform(0.007, 0.018, stocks), etfs_and_index]),
        volume=np.concatenate([np.exp(rng.uniform(np.log(120), np.log(20_000), stocks)), etfs_and_index + 30_000]),
        log_price=np.log(np.concatenate([np.exp(rng.uniform(np.log(18), np.log(350), stocks)), etfs_and_index + 100])),
        restlessness=np.zeros(stocks + sectors + 1),
    )


def _weather(rng: np.random.Generator, days: int) -> _Weather:
    stormy = np.zeros(days + 1, dtype=bool)
    drift = np.zeros(days + 1)
    chance, noise = rng.random(days + 1), rng.standard_normal(days + 1)
    for day in range(1, days + 1):
        stormy[day] = chance[day] > STORM_ENDS if stormy[day - 1] else chance[day] < STORM_BEGINS
        drift[day] = DAY_PERSISTENCE * drift[day - 1] + DAY_NOISE * noise[day]
    volatility = np.where(stormy, STORMY_VOLATILITY, CALM_VOLATILITY) * np.exp(drift)
    expected = volatility.copy()
    for day in range(1, days + 1):
        expected[day] += VIX_PERSISTENCE * (expected[day - 1] - expected[day])
    vix = 100 * np.sqrt(252) * VIX_PREMIUM * expected * np.exp(0.03 * rng.standard_normal(days + 1))
    return _Weather(volatility[1:], stormy[1:], np.round(vix, 2))


def _session(
    rng: np.random.Generator, market: _Market, weather: _Weather, number: int, minutes: int
) -> tuple[Floats, _Market]:
    """One session as (6, minutes, symbols), and where it leaves the market."""
    symbols, sectors = len(market.beta), len(SECTORS)
    storm = weather.volatility[number] / CALM_VOLATILITY
    restless = _restlessness(rng, market.restlessness, minutes)
    shape = _volatility_shape(minutes)[:, None]
    a_minute = np.sqrt((1 - OVERNIGHT_SHARE) / FULL_SESSION) * shape

    common = a_minute * np.exp(restless[:, -1:])
    own = a_minute * np.exp(restless) * market.own_volatility * np.sqrt(storm)
    factor = common * weather.volatility[number] * rng.standard_normal((minutes, 1))
    sector = common * SECTOR_VOLATILITY * np.sqrt(storm) * rng.standard_normal((minutes, sectors))
    moves = market.beta * factor + market.sector_beta * sector[:, market.sector]
    moves += own * rng.standard_normal((minutes, symbols))
    spread = np.sqrt(
        (market.beta * common * weather.volatility[number]) ** 2
        + (market.sector_beta * common * SECTOR_VOLATILITY) ** 2 * storm
        + own**2
    )

    gaps = np.zeros((minutes, symbols))
    gaps[0] = _overnight(rng, market, weather.volatility[number], storm)
    silent = _halt(rng, gaps, storm * HALT_CHANCE)
    close = market.log_price + np.cumsum(gaps + moves, axis=0)
    open_ = close - moves + 0.1 * spread * rng.standard_normal((minutes, symbols))
    prices = _bars(rng, open_, close, spread)

    expected = market.volume * _volume_shape(minutes)[:, None] * storm**0.4 * np.exp(restless)
    surprise = 0.25 * (np.abs(moves) / spread - np.sqrt(2 / np.pi)) + 0.5 * rng.standard_normal((minutes, symbols))
    volume = np.maximum(np.round(expected * np.exp(surprise)), 1.0)
    silent |= rng.random((minutes, symbols)) < np.exp(-expected / SHARES_A_TRADE)
    typical = np.clip(np.round(prices.mean(axis=0), 4), prices[2], prices[1])

    values = np.concatenate([prices, volume[None], typical[None]])
    values[:, silent] = np.nan
    return values, replace(market, log_price=close[-1], restlessness=restless[-1])


def _restlessness(rng: np.random.Generator, before: Floats, minutes: int) -> Floats:
    """Deviation of log volatility, (minutes, symbols): half of a stock's is the index's, the last column's."""
    noise = MINUTE_NOISE * rng.standard_normal((minutes, len(before)))
    noise[:, :-1] = 0.5 * noise[:, -1:] + np.sqrt(0.75) * noise[:, :-1]
    restless = np.empty_like(noise)
    for minute in range(minutes):
        before = MINUTE_PERSISTENCE * before + noise[minute]
        restless[minute] = before
    return restless


def _overnight(rng: np.random.Generator, market: _Market, volatility: float, storm: float) -> Floats:
    factor = volatility * rng.standard_normal()
    sector = SECTOR_VOLATILITY * np.sqrt(storm) * rng.standard_normal(len(SECTORS))
    own = market.own_volatility * np.sqrt(storm) * rng.standard_normal(len(market.beta))
    gap = market.beta * factor + market.sector_beta * sector[market.sector] + own
    return np.asarray(OVERNIGHT_SHARE**0.5 * gap)


def _halt(rng: np.random.Generator, gaps: Floats, chance: float) -> NDArray[np.bool_]:
    """Halts a few stocks: says which minutes have no bars and adds the jump at the reopening to `gaps`."""
    minutes = len(gaps)
    silent = np.zeros(gaps.shape, dtype=bool)
    stocks = len(SECTORS) * len(STOCKS)
    for stock in np.flatnonzero(rng.random(stocks) < chance):
        begin = int(rng.integers(15, minutes - 45))
        reopening = begin + int(rng.integers(HALT_MINUTES[0], HALT_MINUTES[1] + 1))
        silent[begin:reopening, stock] = True
        gaps[reopening, stock] = rng.choice((-1, 1)) * rng.uniform(0.01, 0.04)
    return silent


def _bars(rng: np.random.Generator, open_: Floats, close: Floats, spread: Floats) -> Floats:
    """Open, high, low and close in dollars and cents, (4, minutes, symbols), from log prices.

    Highs and lows are drawn from the extremes of a Brownian bridge: P(max > m) = exp(-2 (m - open)(m - close) / s^2).
    """
    luck = -np.log1p(-rng.random((2, *open_.shape)))
    reach = np.sqrt((close - open_) ** 2 + 2 * spread**2 * luck)
    middle = open_ + close
    prices = np.exp(np.stack([open_, (middle + reach[0]) / 2, (middle - reach[1]) / 2, close]))
    prices = np.maximum(np.round(prices, 2), CENT)
    prices[1] = prices.max(axis=0)
    prices[2] = prices.min(axis=0)
    return np.asarray(prices)


def _volatility_shape(minutes: int) -> Floats:
    """Volatility of each minute over the session's mean: 2.8 times at the open, 0.8 at noon, 1.2 at the close."""
    from_open, to_close = np.arange(minutes), np.arange(minutes)[::-1]
    shape = 1 + 2.2 * np.exp(-from_open / 18) + 0.5 * np.exp(-from_open / 90) + 0.6 * np.exp(-to_close / 25)
    return np.asarray(shape / np.sqrt((shape**2).mean()))


def _volume_shape(minutes: int) -> Floats:
    """Volume of each minute over the session's mean: 3.7 times at the open, 0.75 at noon, 5 in the last minute."""
    from_open, to_close = np.arange(minutes), np.arange(minutes)[::-1]
    shape = 1 + 3.0 * np.exp(-from_open / 12) + 1.2 * np.exp(-from_open / 60) + 2.5 * np.exp(-to_close / 15)
    shape[-1] *= 2
    return np.asarray(shape / shape.mean())
