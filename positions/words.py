"""The words of the house: the values that columns, rules, the API and reports share. One thing, one name."""

from enum import StrEnum

LONGEST_REASON = 200  # characters in which people say why they halt, close or send
#: A symbol that is traded, as people and programs write it to us.
SYMBOL = r"[A-Z][A-Z0-9.-]{0,15}"


class Side(StrEnum):
    LONG = "long"
    SHORT = "short"


#: 1 where a trade wins as the price rises, -1 where it wins as it falls; for a column's plain text too.
SIGN: dict[str, int] = {Side.LONG: 1, Side.SHORT: -1}


class Outcome(StrEnum):
    WIN = "WIN"
    LOSS = "LOSS"


class TradeStatus(StrEnum):
    """`entering`: the entry order works. `cancelled`: it never filled."""

    ENTERING = "entering"
    OPEN = "open"
    EXITING = "exiting"
    CLOSED = "closed"
    CANCELLED = "cancelled"


class ExitReason(StrEnum):
    LOW_VOLUME = "low_volume"
    TIME_LIMIT = "time_limit"
    MOMENTUM_REVERSAL = "momentum_reversal"
    STOP = "stop"
    TARGET = "target"
    BREAKEVEN_STOP = "breakeven_stop"
    SESSION_CLOSE = "session_close"
    MANUAL = "manual"


class Rule(StrEnum):
    """What may act on an open trade: what its exit is named by, and `breakeven`, which moves its stop."""

    LOW_VOLUME = ExitReason.LOW_VOLUME
    TIME_LIMIT = ExitReason.TIME_LIMIT
    MOMENTUM_REVERSAL = ExitReason.MOMENTUM_REVERSAL
    STOP = ExitReason.STOP
    TARGET = ExitReason.TARGET
    SESSION_CLOSE = ExitReason.SESSION_CLOSE
    BREAKEVEN = "breakeven"


class VolumeReference(StrEnum):
    """What volume rule low_volume compares with: that at the trade's entry, or what is usual at these minutes."""

    ENTRY = "entry"
    PROFILE = "profile"


class PlanDoubt(StrEnum):
    """`both_touched`: the stop's bar reached the target too, and which came first is not known. `at_last_price`: no bar
    came any more to leave in."""

    BOTH_TOUCHED = "both_touched"
    AT_LAST_PRICE = "at_last_price"


class RuleNoteKind(StrEnum):
    """`near`: the rule had come nearly all its way, and did not act. The others say why it did not although it was
    there: no bar in the last minute, the trade was leaving already, a user had taken it over."""

    NEAR = "near"
    STALE_DATA = "stale_data"
    LEAVING = "leaving"
    TAKEN_OVER = "taken_over"


class ExitStatus(StrEnum):
    """`superseded`: the stop filled first, or others closed the position."""

    PENDING = "pending"
    DONE = "done"
    SUPERSEDED = "superseded"


class StopMoveStatus(StrEnum):
    OWED = "owed"
    CONFIRMED = "confirmed"
    REFUSED = "refused"


class IntentStep(StrEnum):
    ENTRY = "entry"
    STOP = "stop"
    MOVE = "move"
    EXIT = "exit"


class IntentStatus(StrEnum):
    """`intended`: not known to have been sent. `unknown`: sent, outcome to be looked up."""

    INTENDED = "intended"
    WORKING = "working"
    FILLED = "filled"
    CANCELLED = "cancelled"
    REPLACED = "replaced"
    REJECTED = "rejected"
    UNKNOWN = "unknown"


class InstructionKind(StrEnum):
    """`close`: get out of a symbol's position. `signal`: consider a plan as one of the strategy's own."""

    CLOSE = "close"
    SIGNAL = "signal"


class InstructionState(StrEnum):
    """`taken`: the trading process is at it, or ended while it was. `accepted`: an exit has begun, or an entry order
    works. `expired`: nobody took it in time, and nobody will. `unknown`: it was begun, and failed or its process ended;
    what came of it is seen at the trades only."""

    WAITING = "waiting"
    TAKEN = "taken"
    ACCEPTED = "accepted"
    REFUSED = "refused"
    EXPIRED = "expired"
    UNKNOWN = "unknown"


class Feed(StrEnum):
    SIP = "sip"
    IEX = "iex"
    FILE = "file"
    SIMULATED = "simulated"


class ExternalMode(StrEnum):
    """What becomes of a position at the broker that no trade of ours explains.

    `show`: it is listed. `protect`: it gets a stop. `manage`: exit rules and breakeven act on it too.
    """

    SHOW = "show"
    PROTECT = "protect"
    MANAGE = "manage"
