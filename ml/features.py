"""The registry of features: the one list from which the table's columns, the extractor's output, the encoder, the API
and the pages follow. Units: prices in dollars, shares of something and returns as fractions, distances in ATR.

A feature with `model=False` is stored for people to read; models see it scaled (a 20-dollar and a 900-dollar stock
have nothing in common at their raw EMA).
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from enum import StrEnum


class Group(StrEnum):
    TECHNICAL = "technical"
    MARKET = "market"
    TIMING = "timing"
    HISTORICAL = "historical"
    GEOMETRY = "geometry"


class Kind(StrEnum):
    CONTINUOUS = "continuous"
    CATEGORICAL = "categorical"


class Needs(StrEnum):
    """What must be known for the feature not to be null; the value doubles as the stored reason."""

    NOTHING = ""
    BARS = "insufficient_history"
    PROFILE = "no_volume_profile"
    INDEX = "no_index"
    SECTOR = "no_sector"
    VIX = "no_vix"
    TRADES = "no_closed_trades"
    QUOTE = "no_quote"


#: A row is complete when nothing is null but what these explain: the first trades have no history, bars no quote.
OPTIONAL_NEEDS = frozenset({Needs.TRADES, Needs.QUOTE, Needs.SECTOR})


@dataclass(frozen=True, slots=True)
class Feature:
    name: str
    group: Group
    unit: str
    low: float | None = None
    high: float | None = None
    needs: Needs = Needs.NOTHING
    kind: Kind = Kind.CONTINUOUS
    categories: tuple[str, ...] = ()
    model: bool = True


def _technical(name: str, unit: str, low: float | None = None, high: float | None = None, **more: object) -> Feature:
    return Feature(name, Group.TECHNICAL, unit, low, high, **{"needs": Needs.BARS, **more})  # type: ignore[arg-type]  # forwarded as given


def _market(name: str, unit: str, low: float | None = None, high: float | None = None, **more: object) -> Feature:
    return Feature(name, Group.MARKET, unit, low, high, **{"needs": Needs.INDEX, **more})  # type: ignore[arg-type]  # forwarded as given


REGIMES = ("trend_up", "trend_down", "range", "storm")
VIX_SOURCES = ("cboe", "vixy", "realised", "simulated")
MARKET_SESSIONS = ("pre_market", "open", "mid_day", "close", "after_hours")
SIDES = ("long", "short")

FEATURES: tuple[Feature, ...] = (
    _technical("ema20", "dollars", 0, model=False),
    _technical("ema50", "dollars", 0, model=False),
    _technical("vwap", "dollars", 0, model=False),
    _technical("atr14", "dollars", 0, model=False),
    _technical("macd", "dollars", model=False),
    _technical("macd_signal", "dollars", model=False),
    _technical("macd_histogram", "dollars", model=False),
    _technical("rsi14", "points", 0, 100),
    _technical("adx14", "points", 0, 100),
    _technical("price_vs_vwap", "fraction"),
    _technical("ema20_distance", "ATR"),
    _technical("ema50_distance", "ATR"),
    _technical("vwap_distance", "ATR"),
    _technical("macd_atr", "ATR"),
    _technical("macd_histogram_atr", "ATR"),
    _technical("atr_fraction", "fraction", 0),
    _technical("bar_range", "ATR", 0),
    _technical("return_1", "fraction", -1),
    _technical("return_12", "fraction", -1),
    _technical("realised_volatility", "fraction a bar", 0),
    _technical("relative_volume", "times the usual", 0, needs=Needs.PROFILE),
    Feature("regime", Group.MARKET, "", needs=Needs.INDEX, kind=Kind.CATEGORICAL, categories=REGIMES),
    _market("breadth_ema20", "share of the universe", 0, 1, needs=Needs.BARS),
    _market("breadth_vwap", "share of the universe", 0, 1, needs=Needs.NOTHING),
    _market("vix", "points", 0, needs=Needs.VIX),
    Feature("vix_source", Group.MARKET, "", needs=Needs.VIX, kind=Kind.CATEGORICAL, categories=VIX_SOURCES),
    _market("index_return_12", "fraction", -1),
    _market("index_return_session", "fraction", -1),
    _market("index_rsi14", "points", 0, 100),
    _market("sector_strength", "fraction", needs=Needs.SECTOR),
    _market("symbol_vs_sector", "fraction", needs=Needs.SECTOR),
    Feature("hour", Group.TIMING, "hour in New York", 0, 23),
    Feature("minute_of_session", Group.TIMING, "minutes", -330, 960),
    Feature("day_of_week", Group.TIMING, "Monday is 0", 0, 6),
    Feature("minutes_to_close", Group.TIMING, "minutes", -480, 720),
    Feature("market_session", Group.TIMING, "", kind=Kind.CATEGORICAL, categories=MARKET_SESSIONS),
    Feature("win_rate_10", Group.HISTORICAL, "fraction", 0, 1, needs=Needs.TRADES),
    Feature("streak", Group.HISTORICAL, "wins in a row, losses negative", needs=Needs.TRADES),
    Feature("symbol_win_rate", Group.HISTORICAL, "fraction, shrunk", 0, 1, needs=Needs.TRADES),
    Feature("symbol_mean_r", Group.HISTORICAL, "R, shrunk", needs=Needs.TRADES),
    Feature("symbol_trades", Group.HISTORICAL, "closed trades", 0),
    Feature("side", Group.GEOMETRY, "", kind=Kind.CATEGORICAL, categories=SIDES),
    Feature("risk_atr", Group.GEOMETRY, "ATR", 0, needs=Needs.BARS),
    Feature("reward_to_risk", Group.GEOMETRY, "ratio", 0),
    Feature("p_geometry", Group.GEOMETRY, "probability", 0, 1),
    Feature("spread", Group.GEOMETRY, "dollars", 0, needs=Needs.QUOTE, model=False),
)

BY_NAME = {feature.name: feature for feature in FEATURES}
MODEL_FEATURES = tuple(feature for feature in FEATURES if feature.model)

#: Raised by one whenever a definition changes without its name (an indicator's seed, a clip, a session rule).
DEFINITION_VERSION = 1


def feature_set_hash() -> str:
    """Sixteen hex digits over every name, type, unit, range and definition version; stored with rows and models."""
    schema = [asdict(feature) for feature in FEATURES]
    return hashlib.sha256(json.dumps([DEFINITION_VERSION, schema], sort_keys=True).encode()).hexdigest()[:16]


FEATURE_SET = feature_set_hash()
