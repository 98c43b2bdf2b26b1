"""What people and programs ask of the process that trades: asked through a table, carried out by that process alone
(positions/instruction_taker.py)."""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from positions.models import Instruction, Trade
from positions.words import InstructionKind, Side

#: What nobody has taken by then is never carried out. The trading process looks at least every ten seconds.
LIFETIME = timedelta(seconds=30)


class Plan(NamedTuple):
    """What a signal wants, in dollars."""

    side: Side
    stop: Decimal
    target: Decimal


class Asked(NamedTuple):
    """Who asks, when (aware UTC), and why in their own words."""

    by: str
    at: datetime
    reason: str = ""


def ask_signal(book: str, symbol: str, plan: Plan, asked: Asked) -> Instruction:
    """Ask for a signal to be traded."""
    return _ask(asked, kind=InstructionKind.SIGNAL, book=book, symbol=symbol, **plan._asdict())


def ask_close(trade: Trade, asked: Asked) -> Instruction:
    """Ask for this trade to be closed, and no later one of its symbol."""
    about = {"book": trade.book, "symbol": trade.symbol, "signal_key": trade.signal_key}
    return _ask(asked, kind=InstructionKind.CLOSE, **about)


def _ask(asked: Asked, **wish: Any) -> Instruction:
    by, at, reason = asked
    return Instruction.objects.create(asked_by=by, asked_at=at, expires_at=at + LIFETIME, reason=reason, **wish)
