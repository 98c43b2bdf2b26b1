"""Enter, protect, move a stop, exit: claimed in the store, journaled before it is sent, resumable after any crash.

Each job is a generator whose every call to the broker or the store is a yielded step, so that faults can be enumerated
at each boundary; `Execution` performs the steps. What a step finds at the broker decides, not what was hoped for: an
order is sent only after looking at position and orders, with an id that the same intent always gets, and an unknown
outcome is looked up before anything is sent again.

An intent is stored before its order is sent. What is heard of an order can be asked again after any crash: it is
stored with the next intent, with the end of the trade, or at the end of the job; of an entry or exit that was just
sent, with the news of it.

The jobs are one class in layers, each on those below it: orders; the moves of a stop and the lookups of what is
unknown; the ending of a trade and its stops; entries and exits; the news that sets all of them going. On top stand the
performer, which alone reaches broker and store, and the execution that others call.
"""

from positions.execution.execution import Execution
from positions.execution.limits import ENTRY_PATIENCE, LEAST_RISK, MOST_ATTEMPTS, MOVE_PAUSE, RELEASE_PAUSE
from positions.execution.steps import (
    Cancel,
    FindOrder,
    Insert,
    ReadChanges,
    ReadFills,
    ReadOrders,
    ReadPositions,
    Replace,
    Send,
    Settle,
    Step,
    Steps,
    Update,
)

__all__ = [
    "ENTRY_PATIENCE",
    "LEAST_RISK",
    "MOST_ATTEMPTS",
    "MOVE_PAUSE",
    "RELEASE_PAUSE",
    "Cancel",
    "Execution",
    "FindOrder",
    "Insert",
    "ReadChanges",
    "ReadFills",
    "ReadOrders",
    "ReadPositions",
    "Replace",
    "Send",
    "Settle",
    "Step",
    "Steps",
    "Update",
]
