"""What a book at Alpaca watches: the universe that it trades in, and is audited in."""

from positions.market.bars import Universe
from positions.market.feeds import simulated
from positions.models import LIVE_STATUSES, Instrument, Trade
from tradingsite.kit.options import bad_input

#: Symbols that stand for the market, the first of these that is on the watchlist.
INDEXES = ("SPY", "QQQ", simulated.INDEX)


def watchlist(book: str) -> Universe:
    """The symbols of a book in the order in which they were put there, and those that it holds a trade of.

    Raises CommandError (status 2) where there are none.
    """
    listed = list(Instrument.objects.filter(book=book).exclude(symbol__startswith="^").order_by("pk"))
    if not listed:
        raise bad_input(f"The watchlist of book {book} is empty; fill it in the admin (Positions, Watchlist).")
    rows = [(each.symbol, each.sector, each.sector_etf, each.tradable) for each in listed]
    known = {each.symbol for each in listed}
    held = Trade.objects.filter(book=book, status__in=LIVE_STATUSES).exclude(symbol__in=known).order_by("pk")
    rows += [(symbol, "", "", False) for symbol in held.values_list("symbol", flat=True)]
    symbols, sectors, etfs, tradable = zip(*rows, strict=True)
    index = next((symbols.index(name) for name in INDEXES if name in symbols), None)
    return Universe(symbols, sectors, etfs, tradable, index)
