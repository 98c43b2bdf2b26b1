"""How long the execution waits, and how often it tries."""

from datetime import timedelta
from decimal import Decimal

#: An entry that has not filled by then is given up.
ENTRY_PATIENCE = timedelta(minutes=2)
#: How long an order that was sent may stay invisible before it counts as never received.
VISIBLE_WITHIN = timedelta(seconds=30)
#: How long the view of positions may lag behind what happened.
POSITIONS_LAG = timedelta(seconds=10)
#: A cancelled order gives its shares back within milliseconds as a rule: looked for so often, with a pause between.
RELEASE_LOOKS, RELEASE_PAUSE = 5, timedelta(seconds=0.2)
#: Shares that are shown free for so long are not held by a stop any more, though the end of that is not shown yet.
FREE_FOR = timedelta(seconds=4)
#: A stop move that is refused for now (after hours, say) is asked for again after it.
MOVE_PAUSE = timedelta(seconds=30)
#: Trades that are looked at one after the other share a listing of orders for so long.
SHOWN_FOR = timedelta(seconds=2)
#: Shares that stand longer than this without a stop or a closing order are an alarm, raised within ten seconds.
LONGEST_UNPROTECTED = timedelta(seconds=8)
#: Exits a trade may cost, and stops that may be refused: beyond it more orders will not mend what is wrong.
MOST_ATTEMPTS = 6
#: Stops a trade may cost in all, those that follow a filling entry too.
MOST_STOPS = 24
#: Share of the planned risk that must lie between fill and stop for that distance to be the trade's R.
LEAST_RISK = Decimal("0.25")
