"""The words of the house: the values that columns, rules, the API and reports share. One thing, one name."""

from django.db.models import TextChoices


class Side(TextChoices):
    LONG = "long"
    SHORT = "short"


class Outcome(TextChoices):
    WIN = "WIN"
    LOSS = "LOSS"


class TradeStatus(TextChoices):
    ENTERING = "entering", "entering (entry order working)"
    OPEN = "open"
    EXITING = "exiting"
    CLOSED = "closed"
    CANCELLED = "cancelled", "cancelled (entry never filled)"


class ExitReason(TextChoices):
    LOW_VOLUME = "low_volume"
    TIME_LIMIT = "time_limit"
    MOMENTUM_REVERSAL = "momentum_reversal"
    STOP = "stop"
    TARGET = "target"
    BREAKEVEN_STOP = "breakeven_stop"
    SESSION_CLOSE = "session_close"
    MANUAL = "manual"


class ExitStatus(TextChoices):
    PENDING = "pending"
    DONE = "done"
    SUPERSEDED = "superseded", "superseded (the stop filled first)"


class StopMoveStatus(TextChoices):
    OWED = "owed"
    CONFIRMED = "confirmed"
    REFUSED = "refused"


class IntentStep(TextChoices):
    ENTRY = "entry"
    STOP = "stop"
    MOVE = "move"
    EXIT = "exit"


class IntentStatus(TextChoices):
    INTENDED = "intended", "intended (not known to have been sent)"
    WORKING = "working"
    FILLED = "filled"
    CANCELLED = "cancelled"
    REPLACED = "replaced"
    REJECTED = "rejected"
    UNKNOWN = "unknown", "unknown (sent, outcome to be looked up)"


class Feed(TextChoices):
    SIP = "sip"
    IEX = "iex"
    FILE = "file"
    SIMULATED = "simulated"
