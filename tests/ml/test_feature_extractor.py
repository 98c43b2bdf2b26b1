"""What is read of a signal, against independent arithmetic, and what is null with which reason."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest

from ml.encoder import Encoder
from ml.feature_extractor import FeatureExtractor, SignalFeatures
from ml.features import FEATURES, Kind
from positions.history import TradeHistory
from positions.market.bars import BarHistory, SessionBars, Universe
from positions.market.calendar import Session, session_of
from positions.market.feeds import VixReading
from positions.market.indicators import IndicatorBank
from positions.market.market_regime import MarketState
from positions.models import Trade
from positions.strategy import Signal
from positions.words import Side

MINUTE = timedelta(minutes=1)
UNIVERSE = Universe(
    ("KO", "PEP", "XLP", "SPY", "ODD"),
    ("Staples", "Staples", "", "", ""),
    ("XLP", "XLP", "", "", ""),
    (True, True, False, False, True),
    3,
)


def bars_of(session: Session, seed: int, universe: Universe = UNIVERSE) -> SessionBars:
    random = np.random.default_rng(seed)
    count, n = int((session.close - session.open) / MINUTE), len(universe)
    close = 100 + random.normal(0, 0.05, (count, n)).cumsum(axis=0)
    opened = close + random.normal(0, 0.02, close.shape)
    high, low = np.maximum(opened, close) + 0.03, np.minimum(opened, close) - 0.03
    volume = random.integers(100, 1000, close.shape).astype(float)
    return SessionBars(session, MINUTE, universe, np.stack([opened, high, low, close, volume, close]))


class Desk:
    """A bank that has seen `warm_up` whole sessions and then some bars of a day."""

    def __init__(self, day: date, minutes: int, warm_up: int = 2, universe: Universe = UNIVERSE) -> None:
        session = session_of(day)
        assert session is not None
        self.bank, past = IndicatorBank(universe), BarHistory()
        self.market, self.history = MarketState(self.bank), TradeHistory()
        for number in range(warm_up):
            past.append(bars_of(replace(session, close=session.open + 390 * MINUTE), seed=number, universe=universe))
        self.today = bars_of(session, seed=99, universe=universe)
        self.bank.open_session(session, MINUTE, past)
        for _, batch in zip(range(minutes), self.today.batches(), strict=False):
            self.bank.update(batch)
            self.market.update()
        self.extractor = FeatureExtractor(self.bank, self.market, self.history)

    def signal(self, symbol: str = "KO", side: Side = Side.LONG) -> Signal:
        row = self.bank.row_of[symbol]
        close, sign = float(self.bank.close[row]), 1 if side is Side.LONG else -1
        now = self.bank.now
        return Signal(symbol, row, side, now, self.bank.session.day, close, close - sign, close + 2 * sign)

    def extract(self, symbol: str = "KO", side: Side = Side.LONG) -> SignalFeatures:
        return self.extractor.extract(self.signal(symbol, side))


NORMAL_DAY, HALF_DAY, AFTER_DST = date(2025, 5, 13), date(2025, 11, 28), date(2025, 3, 10)


def test_every_feature_of_the_registry_is_there_and_within_its_range():
    desk = Desk(NORMAL_DAY, 120)
    desk.extractor.vix = VixReading(18.5, "cboe")
    desk.history.add(Trade(symbol="KO", outcome="WIN", r_multiple=1.0, exited_at=desk.bank.session.open))
    found = desk.extract()
    assert list(found.values) == [feature.name for feature in FEATURES]
    assert set(found.missing) == {"spread"}
    assert found.complete
    for feature in FEATURES:
        value = found.values[feature.name]
        if feature.kind is Kind.CATEGORICAL:
            assert value in feature.categories, feature.name
        elif value is not None:
            assert not isinstance(value, str)
            assert feature.low is None or value >= feature.low, feature.name
            assert feature.high is None or value <= feature.high, feature.name


def test_technical_features_are_what_the_bars_say():
    desk = Desk(NORMAL_DAY, 120)
    values, day = desk.extract().values, desk.today.values[:, :120, 0]
    opened, high, low, close, volume, _ = day
    assert values["return_1"] == pytest.approx(close[-1] / close[-2] - 1)
    assert values["return_12"] == pytest.approx(close[-1] / close[-13] - 1)
    moves = np.diff(close[-31:]) / close[-31:-1]
    assert values["realised_volatility"] == pytest.approx(moves.std(ddof=1))
    vwap = (close * volume).sum() / volume.sum()
    assert values["price_vs_vwap"] == pytest.approx(close[-1] / vwap - 1)
    assert values["vwap_distance"] == pytest.approx((close[-1] - vwap) / values["atr14"])
    assert values["bar_range"] == pytest.approx((high[-1] - low[-1]) / values["atr14"])
    assert opened.shape == (120,)


def test_market_features_compare_index_sector_and_symbol_since_the_open():
    desk = Desk(NORMAL_DAY, 120)
    values, day = desk.extract().values, desk.today.values[:, :120]
    since_open = day[3, -1] / day[0, 0] - 1
    assert values["index_return_session"] == pytest.approx(since_open[3])
    assert values["sector_strength"] == pytest.approx(since_open[2] - since_open[3])
    assert values["symbol_vs_sector"] == pytest.approx(since_open[0] - since_open[2])
    assert values["index_return_12"] == pytest.approx(day[3, -1, 3] / day[3, -13, 3] - 1)


def test_an_unknown_sector_is_null_with_its_reason_and_does_not_spoil_the_row():
    found = Desk(NORMAL_DAY, 120).extract("ODD")
    assert found.missing["sector_strength"] == found.missing["symbol_vs_sector"] == "no_sector"
    assert found.complete


def test_without_a_vix_the_index_s_own_volatility_stands_in_and_says_so():
    values = Desk(NORMAL_DAY, 120).extract().values
    assert values["vix_source"] == "realised"
    assert 1 < float(values["vix"] or 0) < 100


def test_without_an_index_and_a_vix_both_are_null_with_their_reasons():
    nothing = Universe(("KO",), ("",), ("",), (True,), None)
    found = Desk(NORMAL_DAY, 120, universe=nothing).extract()
    reasons = {name: found.missing[name] for name in ("vix", "regime", "index_rsi14")}
    assert reasons == {"vix": "no_vix", "regime": "no_index", "index_rsi14": "no_index"}
    assert not found.complete


def test_before_the_first_trade_history_is_null_and_the_row_complete():
    found = Desk(NORMAL_DAY, 120).extract()
    for name in ("win_rate_10", "streak", "symbol_win_rate", "symbol_mean_r"):
        assert found.missing[name] == "no_closed_trades"
    assert found.values["symbol_trades"] == 0
    assert found.complete


def test_too_little_history_is_null_with_that_reason():
    found = Desk(NORMAL_DAY, 120, warm_up=0).extract()
    assert found.bars_used == 120
    assert found.missing["ema50"] == found.missing["adx14"] == "insufficient_history"
    assert not found.complete


def test_a_first_session_without_a_volume_profile_says_so():
    found = Desk(NORMAL_DAY, 300, warm_up=0).extract()
    assert found.missing["relative_volume"] == "no_volume_profile"


@pytest.mark.parametrize(
    ("day", "minutes", "hour", "to_close", "part"),
    [
        (NORMAL_DAY, 15, 9, 375, "open"),
        (NORMAL_DAY, 120, 11, 270, "mid_day"),
        (NORMAL_DAY, 345, 15, 45, "close"),
        (HALF_DAY, 160, 12, 50, "close"),
        (AFTER_DST, 60, 10, 330, "mid_day"),
    ],
)
def test_time_is_new_york_s_and_the_session_s_own(day, minutes, hour, to_close, part):
    values = Desk(day, minutes).extract().values
    assert (values["hour"], values["minute_of_session"]) == (hour, minutes)
    assert (values["minutes_to_close"], values["market_session"]) == (to_close, part)
    assert values["day_of_week"] == day.weekday()


def test_before_the_open_and_after_the_close_are_named():
    desk = Desk(NORMAL_DAY, 10)
    early = replace(desk.signal(), at=datetime(2025, 5, 13, 13, 0, tzinfo=UTC))
    late = replace(desk.signal(), at=datetime(2025, 5, 13, 20, 0, tzinfo=UTC))
    assert desk.extractor.extract_timing_features(early)["market_session"] == "pre_market"
    assert desk.extractor.extract_timing_features(late)["market_session"] == "after_hours"


def test_geometry_is_the_plans_own_odds():
    values = Desk(NORMAL_DAY, 120).extract(side=Side.SHORT).values
    assert values["side"] == "short"
    assert values["reward_to_risk"] == pytest.approx(2.0)
    assert values["p_geometry"] == pytest.approx(1 / 3)
    assert values["risk_atr"] == pytest.approx(1 / float(values["atr14"] or 0))


def test_normalised_features_are_one_float32_row_of_the_encoder():
    desk = Desk(NORMAL_DAY, 120)
    found = desk.extract()
    columns = {feature.name: np.array([found.values[feature.name]] * 3) for feature in FEATURES}
    encoder = Encoder.fit(columns)
    row = desk.extractor.normalize_features(found.values, encoder)
    assert row.dtype == np.float32
    assert row.shape == (1, len(encoder.columns))


def test_ten_thousand_symbols_are_watched_and_one_of_them_described():
    count = 10_000
    many = Universe(
        tuple(f"S{i}" for i in range(count)),
        tuple(f"Sector {i % 11}" for i in range(count)),
        ("",) * count,
        (True,) * count,
        0,
    )
    desk = Desk(NORMAL_DAY, 3, warm_up=1, universe=many)
    found = desk.extract("S1234")
    assert found.bars_used == 393
    stocks = desk.bank.close > desk.bank.ema20
    assert found.values["breadth_ema20"] == pytest.approx(stocks.mean())
