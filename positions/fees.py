"""What the regulators take of a live trade. Alpaca itself charges nothing, and a paper account pays nothing at all; a
paper trade is charged COST_PER_SHARE all the same (positions/execution)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import ROUND_CEILING, Decimal

from positions.words import Side

CENT = Decimal("0.01")


@dataclass(frozen=True, slots=True)
class FeeRates:
    """Rates in dollars from a day (New York) on: the SEC's (Section 31) per dollar sold, FINRA's TAF per share sold and
    the most of it per trade, the Consolidated Audit Trail's per share bought or sold."""

    since: date
    sec_per_dollar: Decimal
    taf_per_share: Decimal
    taf_most: Decimal
    cat_per_share: Decimal


#: Oldest first; a new rate is a new line. Source: alpaca.markets/support/regulatory-fees. Where the day's rate is not
#: known exactly, the higher one stands.
RATES = (
    FeeRates(date(2024, 5, 22), Decimal("0.0000278"), Decimal("0.000166"), Decimal("8.30"), Decimal("0.000053")),
    FeeRates(date(2025, 5, 14), Decimal(0), Decimal("0.000166"), Decimal("8.30"), Decimal("0.000053")),
    FeeRates(date(2026, 1, 1), Decimal("0.0000206"), Decimal("0.000166"), Decimal("8.30"), Decimal("0.000053")),
)


def regulatory_fees(
    day: date, side: Side, quantity: int, entry: Decimal, exit_price: Decimal, rates: Sequence[FeeRates] = RATES
) -> Decimal:
    """Dollars for a whole trade closed on a day, SEC and TAF each rounded up to a cent; before all rates the first."""
    rate = max((each for each in rates if each.since <= day), key=lambda each: each.since, default=rates[0])
    sold = quantity * (exit_price if side is Side.LONG else entry)
    sec = _up_to_a_cent(sold * rate.sec_per_dollar)
    taf = min(_up_to_a_cent(quantity * rate.taf_per_share), rate.taf_most)
    return sec + taf + 2 * quantity * rate.cat_per_share


def _up_to_a_cent(dollars: Decimal) -> Decimal:
    return dollars.quantize(CENT, ROUND_CEILING)
