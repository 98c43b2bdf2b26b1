"""Features of a signal, read out of the bank when the signal is given: no query, no network, no clock."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from math import isfinite, sqrt

import numpy as np
from numpy.typing import NDArray

from ml.encoder import Encoder
from ml.features import BY_NAME, FEATURES, OPTIONAL_NEEDS, Needs
from ml.statistics import SESSIONS_A_YEAR
from positions.history import TradeHistory
from positions.market.calendar import NEW_YORK, market_session
from positions.market.feeds import VixReading
from positions.market.indicators import MINIMUM_BARS, IndicatorBank
from positions.market.market_regime import MarketState
from positions.strategy import Signal

Value = float | str | None


@dataclass(frozen=True, slots=True)
class SignalFeatures:
    """Every feature of the registry for one signal; None with the reason in `missing` where it is not known."""

    values: dict[str, Value]
    missing: dict[str, str]
    bars_used: int

    @property
    def complete(self) -> bool:
        return all(BY_NAME[name].needs in OPTIONAL_NEEDS for name in self.missing)


class FeatureExtractor:
    """Reads the state after the signal's bar; `history` holds the trades closed until then and no others."""

    def __init__(self, bank: IndicatorBank, market: MarketState, history: TradeHistory) -> None:
        self._bank = bank
        self._market = market
        self.history = history
        self.vix: VixReading | None = None

    def extract(self, signal: Signal) -> SignalFeatures:
        raw: dict[str, Value] = {
            **self.extract_technical_features(signal),
            **self.extract_market_features(signal),
            **self.extract_timing_features(signal),
            **self.extract_historical_features(signal),
            **self.extract_geometry_features(signal),
        }
        bars_used = int(self._bank.bars_used[signal.row])
        values: dict[str, Value] = {}
        missing: dict[str, str] = {}
        for feature in FEATURES:
            value = raw[feature.name]
            if value is None or (isinstance(value, float) and not isfinite(value)):
                value = None
                short = bars_used < MINIMUM_BARS and feature.needs is Needs.BARS
                missing[feature.name] = feature.needs if feature.needs and not short else Needs.BARS
            values[feature.name] = value
        return SignalFeatures(values, missing, bars_used)

    def extract_technical_features(self, signal: Signal) -> dict[str, Value]:
        bank, row = self._bank, signal.row
        close, atr, vwap = float(bank.close[row]), float(bank.atr14[row]), float(bank.vwap[row])
        ema20, ema50 = float(bank.ema20[row]), float(bank.ema50[row])
        macd, histogram = float(bank.macd[row]), float(bank.macd_histogram[row])
        closes = bank.closes(row, 31)
        moves = closes[1:] / closes[:-1] - 1.0
        in_atr = 1.0 / atr if atr > 0 else float("nan")
        return {
            "ema20": ema20,
            "ema50": ema50,
            "vwap": vwap,
            "atr14": atr,
            "macd": macd,
            "macd_signal": float(bank.macd_signal[row]),
            "macd_histogram": histogram,
            "rsi14": float(bank.rsi14[row]),
            "adx14": float(bank.adx14[row]),
            "price_vs_vwap": close / vwap - 1.0,
            "ema20_distance": (close - ema20) * in_atr,
            "ema50_distance": (close - ema50) * in_atr,
            "vwap_distance": (close - vwap) * in_atr,
            "macd_atr": macd * in_atr,
            "macd_histogram_atr": histogram * in_atr,
            "atr_fraction": atr / close,
            "bar_range": float(bank.high[row] - bank.low[row]) * in_atr,
            "return_1": float(moves[-1]),
            "return_12": float(closes[-1] / closes[-13] - 1.0),
            "realised_volatility": float(moves.std(ddof=1)),
            "relative_volume": bank.relative_volume(row),
        }

    def extract_market_features(self, signal: Signal) -> dict[str, Value]:
        bank, market, index = self._bank, self._market, self._bank.universe.index
        sector = market.sector_return(signal.row)
        own = float(bank.close[signal.row] / bank.session_open[signal.row]) - 1.0
        index_session = index_12 = index_rsi = float("nan")
        if index is not None:
            index_session = float(bank.close[index] / bank.session_open[index]) - 1.0
            closes = bank.closes(index, 13)
            index_12 = float(closes[-1] / closes[0]) - 1.0
            index_rsi = float(bank.rsi14[index])
        vix = self.vix or self._realised_vix()
        return {
            "regime": str(market.regime) if index is not None else None,
            "breadth_ema20": market.breadth_ema20(),
            "breadth_vwap": market.breadth_vwap(),
            "vix": vix.level if vix else None,
            "vix_source": vix.source if vix else None,
            "index_return_12": index_12,
            "index_return_session": index_session,
            "index_rsi14": index_rsi,
            "sector_strength": sector - index_session,
            "symbol_vs_sector": own - sector,
        }

    def _realised_vix(self) -> VixReading | None:
        """Without a VIX: the index's usual move of the sessions before, annualised, in points."""
        move = self._bank.usual_index_move
        if not isfinite(move):
            return None
        bars_a_day = timedelta(hours=6, minutes=30) / self._bank.length
        # The mean absolute value of a normal variable is sqrt(2 / pi) of its standard deviation.
        return VixReading(100 * move * sqrt(np.pi / 2) * sqrt(bars_a_day * SESSIONS_A_YEAR), "realised")

    def extract_timing_features(self, signal: Signal) -> dict[str, Value]:
        local, session = signal.at.astimezone(NEW_YORK), self._bank.session
        return {
            "hour": float(local.hour),
            "minute_of_session": (signal.at - session.open) / timedelta(minutes=1),
            "day_of_week": float(local.weekday()),
            "minutes_to_close": (session.close - signal.at) / timedelta(minutes=1),
            "market_session": market_session(signal.at, session),
        }

    def extract_historical_features(self, signal: Signal) -> dict[str, Value]:
        history = self.history
        history.as_of(signal.at)
        return {
            "win_rate_10": history.win_rate_10(),
            "streak": float(history.streak) if history.trades else None,
            "symbol_win_rate": history.symbol_win_rate(signal.symbol),
            "symbol_mean_r": history.symbol_mean_r(signal.symbol),
            "symbol_trades": float(history.symbol_trades(signal.symbol)),
        }

    def extract_geometry_features(self, signal: Signal) -> dict[str, Value]:
        """The plan itself: what a random walk would make of it is already a forecast, and the baseline."""
        atr = float(self._bank.atr14[signal.row])
        return {
            "side": str(signal.side),
            "risk_atr": signal.risk / atr if atr > 0 else None,
            "reward_to_risk": signal.reward / signal.risk if signal.risk else None,
            "p_geometry": signal.p_geometry,
            "spread": None,
        }

    @staticmethod
    def normalize_features(values: Mapping[str, Value], encoder: Encoder) -> NDArray[np.float32]:
        """One row for a model, shape (1, columns), by an encoder that was fitted on the training part alone."""
        return encoder.encode_one(values)
