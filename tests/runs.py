"""Runs of a feed into a book, as the commands do them but without a word."""

from positions.market.feeds import ReplayFeed
from tradingsite import books
from tradingsite.replaying import Replayed, ReplayOptions, replay


def run(feed: ReplayFeed, book: str = "simulated", options: ReplayOptions | None = None) -> Replayed:
    """Replace a book by a run of a feed."""
    with books.held(book) as lease, books.rewritten(book, lease) as draft:
        return replay(feed, draft, options or ReplayOptions.in_force(), lambda: books.keep(lease))
