"""What people are told of: states read from the tables and the halt file, and alarms that no table holds."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from django.db.models import Min

from ml.models import DriftCheck, TradeFeatures
from positions.halting import halted
from positions.leases import TRADING
from positions.market.calendar import NEW_YORK
from positions.models import OrderIntent, Trade, WorkerLease
from positions.words import IntentStatus, TradeStatus
from tradingsite.models import NewsKind

PROTECTIONS = {
    "max_open_positions": "the highest number of open trades is reached",
    "daily_loss_limit": "the session has lost the fraction of equity that it may",
    "max_orders_per_minute": "too many orders were sent within a minute",
    "cooldown": "too many losses came in a row",
    "account_unknown": "the account cannot be read",
    "database_away": "the database cannot be read",
}

#: States that end without a word where their process dies: what raised them must raise them again.
UNPROTECTED, STOPPED, AWAY = "unprotected", "stopped", "away"
ENDS = {UNPROTECTED: "protected", STOPPED: "running", AWAY: "back"}
TRADING_GOES_ON = "goes on"


@dataclass(frozen=True, slots=True)
class News:
    """A subject is in a state since `at` (aware UTC). It is news if the state last told was another one.

    `good`: the ordinary state, which is news after another one only.
    """

    kind: NewsKind
    subject: str
    state: str
    text: str
    at: datetime
    good: bool = False


def exits(book: str, since: date, seen: Collection[int]) -> dict[int, News]:
    """By primary key: the trades of the sessions from `since` on that have closed, without those that were `seen`."""
    closed = Trade.objects.filter(book=book, status=TradeStatus.CLOSED)
    new = set(closed.filter(session__gte=since).values_list("pk", flat=True)).difference(seen)
    return {trade.pk: _exit(trade) for trade in closed.filter(pk__in=new)} if new else {}


def _exit(trade: Trade) -> News:
    assert trade.pnl is not None
    assert trade.exited_at is not None
    in_r = f", {trade.r_multiple:+z.2f} R" if trade.r_multiple is not None else ""
    prices = f"{trade.entry_price or trade.planned_entry:.2f} to {trade.exit_price or 0:.2f}"
    text = (
        f"{trade.symbol} {trade.side} closed by {trade.exit_reason}: {trade.pnl:+z,.2f} dollars after fees{in_r}, "
        f"{trade.quantity} shares, {prices}"
    )
    return News(NewsKind.EXIT, f"exit of {trade.signal_key}", str(trade.outcome), text, trade.exited_at)


def refusals(book: str, since: datetime) -> list[News]:
    """The first signal of each session that each protection kept out, and orders that the broker rejected."""
    kept_out = (
        TradeFeatures.objects.filter(
            book=book, session__gte=since.astimezone(NEW_YORK).date(), not_taken_reason__in=PROTECTIONS
        )
        .order_by()
        .values_list("session", "not_taken_reason")
        .annotate(Min("signal_at"))
    )
    blocked = [
        News(
            NewsKind.REFUSAL,
            f"entries of {session} and {reason}",
            "blocked",
            f"Entries are blocked by {reason}: {PROTECTIONS[reason]}",
            first,
        )
        for session, reason, first in kept_out
    ]
    rejected = OrderIntent.objects.filter(book=book, created_at__gte=since, status=IntentStatus.REJECTED)
    return blocked + [
        News(
            NewsKind.REFUSAL,
            f"{intent.step} order of {intent.trade.signal_key}",
            "rejected",
            f"{intent.trade.symbol} {intent.trade.side}: the broker rejected the {intent.step} order"
            f"{intent.error and ': '}{intent.error}",
            intent.created_at,
        )
        for intent in rejected.select_related("trade")
    ]


def halt(book: str, now: datetime) -> News:
    told = halted(book)
    if told is None:
        return News(NewsKind.HALT, "halt", "resumed", "Entries are allowed again", now, good=True)
    closing = f"; {told.extent}" if told.flatten else ""
    text = f"Entries are blocked by {told.by}{closing}{told.reason and ': '}{told.reason}"
    return News(NewsKind.HALT, "halt", f"halted {told.at.isoformat()}", text, told.at)


def drift(book: str, since: datetime) -> list[News]:
    """`since` is of the wall's time."""
    checks = DriftCheck.objects.filter(book=book, stepped_down=True, checked_at__gte=since).select_related("model")
    return [
        News(
            NewsKind.DRIFT,
            f"drift check of {check.checked_at.isoformat()}",
            "stepped down",
            f"Model {check.model.version} drifts ({len(check.alarms)} alarms): {check.reason}",
            check.checked_at,
        )
        for check in checks
    ]


def process(book: str, now: datetime) -> News | None:
    """How the process that trades the book is, None where there is none, or where all is well. `now` is the wall's."""
    lease = WorkerLease.objects.filter(book=book, name=TRADING).first()
    if lease is None:
        return None
    subject = f"process since {lease.acquired_at.isoformat()}"
    if lease.expires_at <= now:
        text = f"The process that trades ({lease.holder}) is not heard of any more; stops stay at the broker"
        return News(NewsKind.FAILURE, subject, "died", text, lease.heartbeat_at)
    text = f"{lease.holder} trades"
    if lease.epoch > 1:
        return News(NewsKind.FAILURE, subject, "took over", f"{text} in the place of one that died", lease.acquired_at)
    return News(NewsKind.FAILURE, subject, "at work", f"{text}: it is heard of again", now, good=True)


#: Events of the log that are news, and no other source is: subject, state and text, with the event's words in braces.
#: A state that nothing ends is told once a trade, or once a day.
ALARMS = {
    "position_unprotected": (
        "protection of {trade}",
        UNPROTECTED,
        "{trade}: shares stand without a stop, look at the account",
    ),
    "position_protected_again": ("protection of {trade}", ENDS[UNPROTECTED], "{trade}: its shares are protected again"),
    "exit_held_up": ("{event} {trade}", "held up", "{trade}: its exit is held up, look at the account"),
    "stop_given_up": ("{event} {trade}", "given up", "{trade}: its stop was refused again and again, set it by hand"),
    "exit_given_up": ("{event} {trade}", "given up", "{trade}: its exit failed again and again, close it by hand"),
    "order_is_not_ours": (
        "{event} {order}",
        "not ours",
        "Order {order} has one of our ids and is not ours, look at it",
    ),
    "trade_refused": ("{event} {trade}", "refused", "{trade}: the database will never take it, it is kept in a file"),
    "trade_journal_failed": ("{event} {day}", "failed", "The disk does not take the journal of trades, make room"),
    "database_lost": ("database", AWAY, "The database is away: entries stop, exits and stops go on"),
    "database_is_back": ("database", ENDS[AWAY], "The database is back"),
    "bars_stopped": ("bars", STOPPED, "The bars have stopped ({trouble}): no rule acts, stops stay at the broker"),
    "bars_again": ("bars", ENDS[STOPPED], "Bars come again"),
    "keys_refused": ("{event} {day}", "refused", "Alpaca refuses the keys, run manage.py check_broker"),
    "failed": ("failure of {about} on {day}", "failed", "A step failed ({what}): the log says how, the rest goes on"),
    "trading_ended": ("trading", "ended: {reason}", "Trading has ended: {reason}"),
    "trading_began": ("trading", TRADING_GOES_ON, "Trading goes on"),
}


def overheard(event: Mapping[str, Any], at: datetime) -> News:
    """What one of the ALARMS says."""
    words = defaultdict(str, event, day=f"{at.astimezone(NEW_YORK):%Y-%m-%d}")
    subject, state, text = (each.format_map(words) for each in ALARMS[event["event"]])
    good = state in (*ENDS.values(), TRADING_GOES_ON)
    return News(NewsKind.FAILURE, subject[:160], state[:64], text[:300], at, good)


def called_off(open_alarms: Iterable[tuple[str, str]], at: datetime) -> list[News]:
    """The ends of alarms (subject, state) whose process is gone and that the one after it did not raise again."""
    return [
        News(NewsKind.FAILURE, subject, ENDS[state], f"{subject}: {ENDS[state]}, as far as is known", at, good=True)
        for subject, state in open_alarms
    ]
