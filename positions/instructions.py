"""What people and programs ask of the process that trades: asked through a table, carried out by that process alone
(positions/instruction_taker.py)."""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from positions.models import Instruction
from positions.words import InstructionKind, Side

#: What nobody has taken by then is never carried out. The trading process looks at least every ten seconds.
LIFETIME = timedelta(seconds=30)


class Plan(NamedTuple):
    """What a signal wants, in dollars."""

    side: Side
    stop: Decimal
    target: Decimal


def ask(book: str, symbol: str, by: str, now: datetime, *, plan: Plan | None = None, reason: str = "") -> Instruction:
    """Ask for a signal to be traded where there is a plan, else for the symbol's position to be closed."""
    told = plan._asdict() if plan else {}
    kind = InstructionKind.SIGNAL if plan else InstructionKind.CLOSE
    return Instruction.objects.create(
        book=book, kind=kind, symbol=symbol, reason=reason, asked_by=by, asked_at=now, expires_at=now + LIFETIME, **told
    )
