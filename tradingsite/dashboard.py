"""The admin's first page: one book at a glance, in a constant number of queries."""

from collections import Counter
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Avg, Count, Subquery
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from ml.feature_writer import backlog
from ml.impact import RULES, Effect, Impact, SessionImpact, summed_impact
from ml.live_record import live_record
from ml.models import DriftCheck, MLModel, Performance, TradeFeatures
from ml.performance_tracker import PerformanceTracker, SessionRecord
from ml.predictor import why_silent
from ml.registry import TRIAL, on_duty
from ml.tables import live_sentence
from ml.words import VERDICTS, Gate
from positions.books import is_at_alpaca, is_book, is_live
from positions.halting import halted
from positions.leases import TRADING
from positions.market.calendar import NEW_YORK, session_of
from positions.models import LIVE_STATUSES, Trade, WorkerLease
from reports import impact
from reports.charts import equity
from reports.daily import MARKETS, errors_path, report_path
from reports.figures import dollars, in_r
from tradingsite.kit.readable import NOT_KNOWN, readable, rows_table
from tradingsite.known_books import stored_books

NEEDED = (
    "positions.view_trade",
    "positions.view_workerlease",
    "ml.view_performance",
    "ml.view_mlmodel",
    "ml.view_driftcheck",
)
SESSIONS_SHOWN = 10
OPEN_TRADES_SHOWN = 50
CLOSED_SHOWN = 8
OPEN_TRADE_HEAD = (
    *("trade", "side", "status", "shares", "entry", "stop", "target", "since"),
    *("last price", "to the stop", "nearest rule", "protected"),
)
#: Written out, as SQLite takes the index of live trades only where it sees which values are asked for.
IS_LIVE = "status IN ({})".format(", ".join(f"'{status}'" for status in LIVE_STATUSES))
#: What has a net effect: the rules, and all trades together.
JUDGED = (*RULES, impact.ALL)


@dataclass(frozen=True, slots=True)
class Card:
    """A figure with what it is worth: its n, its baseline, or why it is undefined."""

    title: str
    value: str
    note: str


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Called by the admin's index with its context; who may not see the figures is told what is lacking."""
    lacking = [permission for permission in NEEDED if not request.user.has_perm(permission)]
    if lacking:
        return {**context, "lacking": lacking}
    asked = request.GET.get("book", "")
    book, now = asked if is_book(asked) else settings.BOOK, timezone.now()
    sessions = list(Performance.objects.filter(book=book)[:SESSIONS_SHOWN])
    leases = list(WorkerLease.objects.filter(book=book))
    last, is_running = _last(book, sessions, leases, now)
    exits = _impact(book)
    return {
        **context,
        "book": book,
        "title": "Dashboard",
        "books": _books(book),
        "market": MARKETS.get(book.partition(":")[0], "A book of unknown kind."),
        "is_live": is_live(book),
        "last": last,
        "is_running": is_running,
        "last_report": _report_link(book, last.session) if last else "",
        "cards": _cards(last, _plan_odds(book, last.session)) if last else [],
        "sessions": _sessions(book, sessions),
        "sessions_shown": SESSIONS_SHOWN,
        "exits": _exits(sessions, exits),
        "exits_verdict": impact.in_one_sentence(exits),
        "closed": _closed(book),
        "as_of": now,
        **_equity(book),
        "open_trades": _open_trades(book, _watch(book, leases, now)),
        "halt": halted(book),
        "may_halt": request.user.has_perm("positions.halt_trading"),
        "blocked": _blocked(book),
        "leases": _leases(leases, now),
        "waiting": _waiting(),
        **_model(book),
    }


def _books(shown: str) -> list[str]:
    return sorted({settings.BOOK, shown, *stored_books()})


def _share(part: float | None) -> str:
    return readable(None) if part is None else f"{part:.1%}"


def _measured(value: float | None, unit: str) -> str:
    return NOT_KNOWN if value is None else f"{readable(value)} {unit}"


def _last(
    book: str, stored: list[Performance], leases: list[WorkerLease], now: datetime
) -> tuple[Performance | None, bool]:
    """The book's last session, and whether it still runs. An account's is put into figures as it stands: its report is
    written later, or before its end, or never."""
    last = stored[0] if stored else None
    if not is_at_alpaca(book):
        return last, False
    now = _market_time(leases, now)
    tracker, today = PerformanceTracker(book), session_of(now.astimezone(NEW_YORK).date())
    day = tracker.last_session()
    if today and _has_seen(today.day, leases):
        day = today.day
    if day is None or (last and day < last.session):
        return last, False
    is_running = bool(today and day == today.day and now < today.close)
    return tracker.figures(tracker.read(day, day).get(day) or SessionRecord(day)), is_running


def _market_time(leases: list[WorkerLease], now: datetime) -> datetime:
    """A simulated Alpaca has a time of its own, which its last bar tells."""
    if not settings.ALPACA_TRADING_URL:
        return now
    bars = (lease.last_bar_at for lease in leases if lease.name == TRADING)
    return max((bar + timedelta(minutes=1) for bar in bars if bar), default=now)


def _has_seen(day: date, leases: list[WorkerLease]) -> bool:
    """Whether a bar of the day has come to the process that trades, whose market's clock may not be ours."""
    bars = (lease.last_bar_at for lease in leases if lease.name == TRADING)
    return any(bar.astimezone(NEW_YORK).date() == day for bar in bars if bar)


def _plan_odds(book: str, session: date) -> float | None:
    """The mean of what the plans of the trades taken would win on a random walk: the win rate to beat."""
    taken = TradeFeatures.objects.filter(book=book, session=session, taken=True)
    mean: float | None = taken.aggregate(mean=Avg("p_geometry"))["mean"]
    return mean


def _cards(last: Performance, plan_odds: float | None) -> list[Card]:
    trades = f"{last.trades} closed trade{'' if last.trades == 1 else 's'}"
    none_lost = f"undefined: {'no trade' if not last.trades else 'none of ' + trades + ' lost'}"
    n = f"n = {last.trades}"
    return [
        Card("Result", dollars(last.pnl), f"after fees, {trades}"),
        Card("Average result", in_r(last.average_r), f"{n}; 1 R is what a trade risked at entry"),
        Card("Win rate", _share(last.win_rate), f"{n}; the plans' own odds: {_share(plan_odds)}"),
        Card(
            "Profit factor",
            readable(last.profit_factor),
            none_lost if last.profit_factor is None else f"dollars won per dollar lost, {n}",
        ),
        Card("Largest drawdown", _measured(last.max_drawdown_r, "R"), "from a peak of the session, closed trades"),
        Card("Breakeven stops", readable(last.breakeven_moves), "stops moved to entry plus costs"),
        Card(
            "Features collected",
            _share(last.feature_rows / last.signals if last.signals else None),
            f"{last.feature_rows} rows for {last.signals} signals; {last.complete_feature_rows} complete",
        ),
        Card("Without a stop", _measured(last.unprotected_seconds, "s"), "seconds that shares were unprotected"),
    ]


def _report_link(book: str, session: date) -> SafeString | str:
    path = report_path(book, session)
    if not path.is_file():
        return ""
    address = reverse("report", args=[path.parent.name, session])
    return format_html('<a class="text-link" href="{}">report</a>', address)


def _sessions(book: str, sessions: list[Performance]) -> SafeString:
    return rows_table(
        ("session", "trades", "win rate", "result", "average R", "signals", "errors", "report"),
        [
            [
                row.session.isoformat(),
                row.trades,
                _share(row.win_rate),
                dollars(row.pnl),
                in_r(row.average_r),
                row.signals,
                _errors_link(row),
                _report_link(book, row.session),
            ]
            for row in sessions
        ],
    )


def _errors_link(row: Performance) -> SafeString | int:
    if not row.errors:
        return 0
    return format_html('<a class="text-link" href="{}">{}</a>', errors_path(row.book, row.session), row.errors)


def _equity(book: str) -> dict[str, Any]:
    """Every session's result; R of a session is its mean times its trades."""
    rows = list(
        Performance.objects.filter(book=book).order_by("session").values_list("session", "average_r", "trades", "pnl")
    )
    if not rows:
        return {"session_count": 0, "figures": {}}
    days = [day for day, *_ in rows]
    r = [(average or 0.0) * trades for _, average, trades, _ in rows]
    return {
        "session_count": len(rows),
        "figures": {"equity": equity(days, r, [float(pnl) for *_, pnl in rows], days[-1])},
    }


def _exits(sessions: list[Performance], found: Impact) -> SafeString:
    """By reason: how many there were of late, and what they were worth beside their plans over the whole book."""
    counts = sum((Counter(row.exits) for row in sessions), Counter[str]())
    if not counts:
        return SafeString("")
    last = Counter(sessions[0].exits)
    worth = [(reason, last[reason], n, found.reasons.get(reason)) for reason, n in counts.most_common()]
    everything = (impact.ALL, last.total(), counts.total(), found.together)
    return rows_table(
        (
            *("reason", sessions[0].session.isoformat(), f"last {len(sessions)} sessions", "trades of the book"),
            *("mean R", "left to its plan", "net effect", "verdict"),
        ),
        [
            [reason, *how_many, *_worth(effect, judged=reason in JUDGED)]
            for reason, *how_many, effect in (*worth, everything)
        ],
    )


def _worth(effect: Effect | None, *, judged: bool) -> list[str | int]:
    """Only what a rule did can have an effect: the other reasons are the plan's own."""
    if effect is None:
        return [NOT_KNOWN] * 5
    net = impact.around(effect.net, effect.net_interval, impact.R_STYLE)
    return [
        effect.n,
        in_r(effect.mean_r),
        in_r(effect.otherwise_mean_r),
        *((net, str(effect.verdict)) if judged else (NOT_KNOWN, NOT_KNOWN)),
    ]


def _impact(book: str) -> Impact:
    """Of all sessions stored, as the report of the last has it."""
    stored = Performance.objects.filter(book=book).order_by("session").values_list("exit_effects", flat=True)
    return summed_impact([SessionImpact.from_dict(each) for each in stored])


def _closed(book: str) -> SafeString:
    closed = Trade.objects.filter(book=book, exited_at__isnull=False)
    newest = closed.order_by("-exited_at", "-id")[:CLOSED_SHOWN]
    return rows_table(
        ("trade", "side", "closed", "by", "result", "dollars", "left to its plan"),
        [
            [
                _trade_link(trade),
                trade.side,
                trade.exited_at,
                trade.exit_reason,
                in_r(trade.r_multiple),
                dollars(trade.pnl or 0),
                in_r(trade.plan_r),
            ]
            for trade in newest
        ],
    )


def _trade_link(trade: Trade) -> SafeString:
    address = reverse("admin:positions_trade_change", args=[trade.pk])
    return format_html('<a class="text-link" href="{}">{}</a>', address, trade.symbol)


@dataclass(frozen=True, slots=True)
class Watch:
    """What the process that watches a book told last of each open trade, by signal key; of a trade that it did not
    tell of, `else_protected` is all that is known of its protection."""

    told: dict[str, dict[str, Any]]
    else_protected: str = NOT_KNOWN


def _watch(book: str, leases: list[WorkerLease], now: datetime) -> Watch:
    lease = next((each for each in leases if each.name == TRADING), None)
    if lease is None:
        return Watch({}, "nobody watches" if is_at_alpaca(book) else NOT_KNOWN)
    if lease.expires_at <= now:
        return Watch({}, f"nobody watches since {timezone.localtime(lease.heartbeat_at):%Y-%m-%d %H:%M:%S}")
    return Watch({each["signal_key"]: each for each in lease.watched})


def _standing(trade: Trade, watch: Watch) -> list[str]:
    """Price, distance to the stop, the rule that has come furthest or the way out, and whether every share has a
    stop."""
    told = watch.told.get(trade.signal_key)
    if told is None:
        return [NOT_KNOWN, NOT_KNOWN, NOT_KNOWN, watch.else_protected]
    way, protected = _way_out(told), _protection(told)
    if "price" not in told:
        return [NOT_KNOWN, NOT_KNOWN, way, protected]
    return [f"{told['price']:,.2f}", in_r(told["to_stop_r"]), way, protected]


def _way_out(told: dict[str, Any]) -> str:
    if told.get("held_up_since"):
        return f"exit held up since {_time(told['held_up_since'])}"
    if told.get("leaves_by"):
        return f"leaves by {told['leaves_by']}"
    return f"{told['rule']}, {told['share']:.0%} there" if "rule" in told else NOT_KNOWN


def _protection(told: dict[str, Any]) -> str:
    """While an exit is held up nobody knows whether its stop, which was to be cancelled, still stands."""
    if told["unprotected_since"]:
        return f"NOT since {_time(told['unprotected_since'])}"
    return "not known: look at the account" if told.get("held_up_since") else "yes"


def _time(moment: str) -> str:
    return f"{datetime.fromisoformat(moment).astimezone(NEW_YORK):%H:%M:%S}"


def _open_trades(book: str, watch: Watch) -> SafeString:
    trades = Trade.objects.filter(book=book).extra(where=[IS_LIVE]).order_by("symbol")[:OPEN_TRADES_SHOWN]
    return rows_table(
        OPEN_TRADE_HEAD,
        [
            [
                _trade_link(trade),
                trade.side,
                trade.status,
                trade.quantity,
                trade.entry_price,
                trade.stop_price,
                trade.target,
                trade.entered_at or trade.signal_at,
                *_standing(trade, watch),
            ]
            for trade in trades
        ],
    )


def _blocked(book: str) -> SafeString:
    """Signals of the last day that has any, by what kept them from being entered."""
    signals = TradeFeatures.objects.filter(book=book)
    last = signals.order_by("-signal_at").values("session")[:1]
    kept = signals.filter(session=Subquery(last), taken=False).order_by()
    counts = kept.values_list("not_taken_reason").annotate(n=Count("pk")).order_by("-n")
    return rows_table(("reason", "signals"), [list(row) for row in counts])


def _waiting() -> str:
    """What was handed over by any process and is not in the database yet."""
    waits = backlog(settings.VAR_DIR / "journal")
    if not waits.rows or waits.oldest_at is None:
        return "No feature row waits to be stored."
    since = timezone.localtime(waits.oldest_at)
    return (
        f"{waits.rows:,} feature rows of live trading wait in the journal to be stored, the oldest since "
        f"{since:%Y-%m-%d %H:%M:%S} New York time. If that grows, the trading process cannot reach the database."
    )


def _leases(leases: list[WorkerLease], now: datetime) -> SafeString:
    """Who works for this book; whatever its clock, leases run on the wall's."""
    return rows_table(
        (
            "job",
            "state",
            "last heard of",
            "last bar",
            "symbols without a new bar",
            "bars kept out",
            "longest tick",
            "requests a tick",
            "by",
            "last error",
        ),
        [
            [
                lease.name,
                "working" if lease.expires_at > now else "silent: expired",
                lease.heartbeat_at,
                lease.last_bar_at,
                lease.stale_symbols,
                lease.quarantined_bars,
                NOT_KNOWN if lease.tick_seconds is None else f"{lease.tick_seconds:.2f} s",
                lease.calls_a_tick,
                lease.holder,
                lease.last_error,
            ]
            for lease in leases
        ],
    )


def _model(book: str) -> dict[str, Any]:
    light = MLModel.objects.defer("artifact", "importance", "manifest")
    latest = light.filter(book=book).first()
    return {
        "model": latest,
        "verdict": VERDICTS[Gate(latest.gate)] if latest else "",
        "model_figures": _figures(latest.metrics) if latest else None,
        **_service(book),
    }


def _service(book: str) -> dict[str, Any]:
    """Who serves the book, why its word does not count if so, and who is on trial."""
    duty = on_duty(book)
    return {
        "champion": duty.champion,
        "live": live_sentence(live_record(duty.champion)) if duty.champion else "",
        "silent": why_silent(duty.champion, timezone.now()) if duty.champion else "",
        "drift": DriftCheck.objects.filter(book=book, model=duty.champion).first() if duty.champion else None,
        "trial": duty.on_trial,
        "trial_length": TRIAL,
    }


def _figures(metrics: dict[str, Any]) -> SafeString:
    """Out-of-sample figures beside their baselines on the same rows."""
    interval, geometry = metrics.get("auc_interval"), metrics.get("geometry", {})
    between = f" (95 %: {interval['low']:.3f} to {interval['high']:.3f})" if interval else ""
    majority, base_rate = metrics.get("majority_accuracy"), metrics.get("base_rate_brier")
    return rows_table(
        ("figure", "model", "the plan's odds alone", "always the same answer"),
        [
            ("AUC (higher is better)", readable(metrics.get("auc")) + between, geometry.get("auc"), 0.5),
            ("Accuracy (higher is better)", metrics.get("accuracy"), geometry.get("accuracy"), majority),
            ("Brier score (lower is better)", metrics.get("brier"), geometry.get("brier"), base_rate),
        ],
    )
