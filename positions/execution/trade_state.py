"""What the journaled orders of a live trade amount to: shares, stops, what is under way. It asks nobody."""

from datetime import datetime

from positions.broker.port import Listing, Order, Position
from positions.execution.limits import MOST_ATTEMPTS
from positions.models import OrderIntent
from positions.store import LiveTrade
from positions.words import SIGN, IntentStatus, IntentStep, TradeStatus

OVER = (IntentStatus.FILLED, IntentStatus.CANCELLED, IntentStatus.REPLACED, IntentStatus.REJECTED)
#: Nobody knows whether the broker has it.
OPEN_QUESTIONS = (IntentStatus.INTENDED, IntentStatus.UNKNOWN)
PROTECTING = (IntentStep.STOP, IntentStep.MOVE)
CLOSING = (IntentStep.STOP, IntentStep.MOVE, IntentStep.EXIT)
#: What `LiveTrade.alarmed` may be, the worse one first.
UNPROTECTED, HELD_UP = ALARMS = ("position_unprotected", "exit_held_up")


def shares_left(mine: LiveTrade) -> int:
    """Shares bought and, as far as our own orders tell, not yet sold."""
    return mine.trade.quantity - sum(intent.filled_quantity for intent in mine.intents if intent.step in CLOSING)


def attempts(mine: LiveTrade, step: IntentStep) -> int:
    return sum(intent.step == step for intent in mine.intents)


def is_given_up(mine: LiveTrade) -> bool:
    """Whether an exit has cost so many orders that no other is sent."""
    return attempts(mine, IntentStep.EXIT) >= MOST_ATTEMPTS


def held_up_since(mine: LiveTrade) -> datetime | None:
    """When the exit was decided that no order carries out yet; None where one does, and where it is given up."""
    working = any(i.step == IntentStep.EXIT and i.status == IntentStatus.WORKING for i in mine.intents)
    return None if mine.exit is None or working or is_given_up(mine) else mine.exit.decided_at


def covers(standing: list[OrderIntent], mine: LiveTrade) -> bool:
    """Whether exactly one stop stands, for exactly the shares held."""
    left = [intent.quantity - intent.filled_quantity for intent in standing]
    return left == [shares_left(mine) - mine.sold_by_others]


def agrees(mine: LiveTrade, position: Position | None, orders: Listing[Order]) -> bool:
    """Whether the broker shows the shares and the orders that this trade should have."""
    shown = [intent for intent in mine.intents if intent.client_order_id in orders]
    if shown != [intent for intent in mine.intents if intent.status == IntentStatus.WORKING]:
        return False
    held = SIGN[mine.trade.side] * position.quantity if position else 0
    standing = [intent for intent in shown if intent.step in PROTECTING]
    return held == shares_left(mine) and (mine.trade.status != TradeStatus.OPEN or covers(standing, mine))


def moved_from(mine: LiveTrade, intent: OrderIntent) -> OrderIntent:
    """The stop that a move is to replace."""
    before = mine.intents[: mine.intents.index(intent)]
    return [each for each in before if each.step in PROTECTING and each.status != IntentStatus.REJECTED][-1]


def cannot_move(mine: LiveTrade, intent: OrderIntent) -> bool:
    """Whether the stop that was to be replaced ended otherwise."""
    old = moved_from(mine, intent)
    return old.status in OVER and old.status != IntentStatus.REPLACED
