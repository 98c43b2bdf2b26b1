"""What is stored about positions. Every row belongs to one book; prices and money are Decimal, times aware UTC."""

from copy import copy
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from django.db import models
from django.db.models import F, Q

from positions.words import (
    LONGEST_REASON,
    ExitReason,
    ExitStatus,
    Feed,
    InstructionKind,
    InstructionState,
    IntentStatus,
    IntentStep,
    Outcome,
    PlanDoubt,
    Rule,
    RuleNoteKind,
    Side,
    StopMoveStatus,
    TradeStatus,
)


def price_field(**options: Any) -> "models.DecimalField[Any, Decimal]":
    return models.DecimalField(max_digits=14, decimal_places=6, **{"help_text": "dollars a share", **options})


def money_field(name: str | None = None, **options: Any) -> "models.DecimalField[Any, Decimal]":
    return models.DecimalField(name, max_digits=16, decimal_places=6, **options)


def book_field() -> "models.CharField[Any, str]":
    return models.CharField(max_length=64, help_text="simulated, replay:HASH, paper:ACCOUNT or live:ACCOUNT")


def word_field(words: type[StrEnum], **options: Any) -> "models.CharField[Any, str]":
    longest = max(map(len, words))
    return models.CharField(max_length=longest, choices=[(word.value, word.value) for word in words], **options)


def allowed(field: str, words: type[StrEnum], name: str) -> models.CheckConstraint:
    return models.CheckConstraint(condition=Q(**{f"{field}__in": [word.value for word in words]}), name=name)


def plan_constraints(table: str) -> list[models.CheckConstraint]:
    """Stop and target lie around the entry; how the plan ended is known of an entered row as a whole, or not at all."""
    return [
        allowed("plan_outcome", Outcome, f"{table}_plan_outcome"),
        allowed("plan_doubt", PlanDoubt, f"{table}_plan_doubt"),
        models.CheckConstraint(
            condition=Q(plan_exit_reason__in=[ExitReason.STOP, ExitReason.TARGET, ExitReason.SESSION_CLOSE]),
            name=f"{table}_plan_exit_reason",
        ),
        models.CheckConstraint(
            condition=Q(side=Side.LONG, initial_stop__lt=F("planned_entry"), target__gt=F("planned_entry"))
            | Q(side=Side.SHORT, initial_stop__gt=F("planned_entry"), target__lt=F("planned_entry")),
            name=f"{table}_plan_on_the_right_side",
        ),
        models.CheckConstraint(
            condition=Q(
                entered_at__isnull=False,
                plan_outcome__isnull=False,
                plan_r__isnull=False,
                plan_exit_reason__isnull=False,
                plan_ended_at__isnull=False,
            )
            | Q(
                plan_outcome__isnull=True,
                plan_r__isnull=True,
                plan_exit_reason__isnull=True,
                plan_ended_at__isnull=True,
                plan_doubt__isnull=True,
            ),
            name=f"{table}_plan_ended_as_a_whole",
        ),
    ]


EVIDENCE = "every input of the decision; prices and risk in dollars a share, volumes in shares a bar"
LIVE_STATUSES = (TradeStatus.ENTERING, TradeStatus.OPEN, TradeStatus.EXITING)


class Instrument(models.Model):
    """A symbol on a book's watchlist."""

    book = book_field()
    symbol = models.CharField(max_length=16)
    sector = models.CharField(max_length=64, blank=True)
    sector_etf = models.CharField(max_length=16, blank=True)
    tradable = models.BooleanField(default=True, help_text="off: watched for breadth and sectors, never traded")

    class Meta:
        db_table = "instruments"
        ordering = ["book", "symbol"]
        constraints = [models.UniqueConstraint(fields=["book", "symbol"], name="instrument_once_a_book")]

    def __str__(self) -> str:
        return self.symbol


class Trade(models.Model):
    """One signal that was acted on, from its entry order to its outcome.

    `planned_entry`, `initial_stop` and `target` are the plan and never change; `stop_price` is the stop confirmed at
    the broker. `risk_per_share` is R in dollars. `outcome` is NULL until the trade is closed; a net result of exactly
    zero is a LOSS. The columns `plan_...` say how it would have ended by its initial stop, its target and the session's
    close alone (positions/ledger.py): NULL until that is known, and for ever where a bar of the plan's life was missed.
    """

    book = book_field()
    signal_key = models.CharField(max_length=64, help_text="symbol, time and side of the signal")
    symbol = models.CharField(max_length=16)
    side = word_field(Side)
    status = word_field(TradeStatus, default=TradeStatus.ENTERING)
    strategy = models.CharField(max_length=128)
    managed = models.BooleanField(default=True, help_text="off: its stop protects it, and no exit rule acts on it")
    feed = word_field(Feed)
    session = models.DateField(help_text="New York trading day")
    exit_settings_hash = models.CharField(max_length=16, help_text="which exit rules and numbers it was traded under")

    signal_at = models.DateTimeField()
    planned_entry = price_field()
    initial_stop = price_field()
    target = price_field()
    planned_quantity = models.PositiveIntegerField(help_text="shares")
    equity = money_field(null=True, help_text="dollars in the account that the quantity was chosen for")
    entry_volume = models.FloatField(null=True, help_text="mean volume a bar when the signal was given, in shares")

    entered_at = models.DateTimeField(null=True)
    entry_price = price_field(null=True)
    quantity = models.PositiveIntegerField(default=0, help_text="shares filled")
    risk_per_share = price_field(null=True)
    stop_price = price_field(null=True)
    breakeven_set = models.BooleanField(default=False)

    exited_at = models.DateTimeField(null=True)
    exit_price = price_field(null=True)
    exit_reason = word_field(ExitReason, null=True)
    fees = money_field(default=Decimal(0), help_text="dollars")
    pnl = money_field("P/L", null=True, help_text="dollars, after fees")
    r_multiple = models.FloatField(null=True, help_text="result after fees in R, units of the initial risk")
    mae_r = models.FloatField("MAE", null=True, help_text="how far the trade went against us at its worst, in R")
    mfe_r = models.FloatField("MFE", null=True, help_text="how far the trade went for us at its best, in R")
    outcome = word_field(Outcome, null=True)
    worst_after_r = models.FloatField(
        "worst after", null=True, help_text="how far prices went against it from its end to the session's close, in R"
    )
    best_after_r = models.FloatField(
        "best after", null=True, help_text="how far prices went for it from its end to the session's close, in R"
    )
    unprotected_seconds = models.FloatField(default=0, help_text="seconds that filled shares had no stop at the broker")

    plan_outcome = word_field(Outcome, null=True, help_text="had the trade been left to its initial stop and target")
    plan_r = models.FloatField("plan R", null=True, help_text="the plan's own result after fees in R")
    plan_exit_reason = word_field(ExitReason, null=True)
    plan_ended_at = models.DateTimeField(null=True)
    plan_doubt = word_field(PlanDoubt, null=True, help_text="why the plan's result is not certain; empty where it is")

    class Meta:
        db_table = "trades"
        ordering = ["-signal_at", "-id"]
        constraints = [
            models.UniqueConstraint(fields=["book", "signal_key"], name="trade_once_a_signal"),
            models.UniqueConstraint(
                fields=["book", "symbol"], condition=Q(status__in=LIVE_STATUSES), name="trade_one_position_a_symbol"
            ),
            allowed("side", Side, "trade_side"),
            allowed("status", TradeStatus, "trade_status"),
            allowed("outcome", Outcome, "trade_outcome"),
            allowed("exit_reason", ExitReason, "trade_exit_reason"),
            allowed("feed", Feed, "trade_feed"),
            *plan_constraints("trade"),
            models.CheckConstraint(condition=Q(planned_quantity__gt=0), name="trade_quantity_positive"),
            models.CheckConstraint(
                condition=Q(planned_entry__gt=0, initial_stop__gt=0, target__gt=0), name="trade_prices_positive"
            ),
            models.CheckConstraint(
                condition=Q(
                    status=TradeStatus.CLOSED,
                    outcome__isnull=False,
                    exit_reason__isnull=False,
                    pnl__isnull=False,
                    exited_at__isnull=False,
                )
                | (~Q(status=TradeStatus.CLOSED) & Q(outcome__isnull=True, exited_at__isnull=True)),
                name="trade_outcome_once_closed",
            ),
        ]
        indexes = [
            models.Index(fields=["book", "status"], name="trade_open_of_a_book"),
            models.Index(fields=["book", "session"], name="trade_of_a_session"),
            models.Index(fields=["book", "-signal_at", "-id"], name="trade_newest_of_a_book"),
            models.Index(fields=["-signal_at", "-id"], name="trade_newest"),
            models.Index(fields=["symbol", "-signal_at"], name="trade_newest_of_a_symbol"),
            models.Index(fields=["outcome", "-signal_at", "-id"], name="trade_by_outcome"),
            models.Index(fields=["exit_reason", "-signal_at", "-id"], name="trade_by_exit"),
            models.Index(
                fields=["book", "-exited_at", "-id"], condition=Q(exited_at__isnull=False), name="trade_last_closed"
            ),
        ]

    def __str__(self) -> str:
        return self.signal_key


class ShadowTrade(models.Model):
    """A signal that was not taken, followed on paper by its plan alone (positions/shadow.py): no order was ever sent.

    `not_taken_reason` is that of its features' row. The columns `entered_at` to `risk_per_share` are NULL while no bar
    came to enter in, and the columns `plan_...` as those of a trade are.
    """

    book = book_field()
    signal_key = models.CharField(max_length=64, help_text="symbol, time and side of the signal")
    symbol = models.CharField(max_length=16)
    side = word_field(Side)
    strategy = models.CharField(max_length=128)
    not_taken_reason = models.CharField(max_length=64, help_text="what kept the signal from being traded")
    feed = word_field(Feed)
    session = models.DateField(help_text="New York trading day")

    signal_at = models.DateTimeField()
    planned_entry = price_field()
    initial_stop = price_field()
    target = price_field()

    entered_at = models.DateTimeField(null=True)
    entry_price = price_field(null=True, help_text="open of the symbol's next bar, dollars a share")
    risk_per_share = price_field(null=True)

    plan_outcome = word_field(Outcome, null=True)
    plan_r = models.FloatField("plan R", null=True, help_text="result after fees in R, units of the initial risk")
    plan_exit_reason = word_field(ExitReason, null=True)
    plan_ended_at = models.DateTimeField(null=True)
    plan_doubt = word_field(PlanDoubt, null=True, help_text="why the result is not certain; empty where it is")

    class Meta:
        db_table = "shadow_trades"
        ordering = ["-signal_at", "-id"]
        constraints = [
            models.UniqueConstraint(fields=["book", "signal_key"], name="shadow_once_a_signal"),
            allowed("side", Side, "shadow_side"),
            allowed("feed", Feed, "shadow_feed"),
            *plan_constraints("shadow"),
        ]
        indexes = [
            models.Index(fields=["book", "session"], name="shadow_of_a_session"),
            models.Index(fields=["book", "-signal_at", "-id"], name="shadow_newest_of_a_book"),
            models.Index(fields=["-signal_at", "-id"], name="shadow_newest"),
            models.Index(fields=["not_taken_reason", "-signal_at", "-id"], name="shadow_by_reason"),
        ]

    def __str__(self) -> str:
        return self.signal_key


class PositionExit(models.Model):
    """An exit that we decided and executed: rule, evidence and result. A stop that filled at the broker has none."""

    book = book_field()
    trade = models.ForeignKey(Trade, models.CASCADE, related_name="exits")
    rule = word_field(ExitReason)
    status = word_field(ExitStatus, default=ExitStatus.PENDING)
    evidence = models.JSONField(help_text=EVIDENCE)
    decided_at = models.DateTimeField()
    decided_price = price_field()
    quantity = models.PositiveIntegerField(help_text="shares")
    finished_at = models.DateTimeField(null=True)
    exit_price = price_field(null=True)
    pnl = money_field("P/L", null=True, help_text="dollars, after fees")
    r_multiple = models.FloatField(null=True, help_text="result after fees in R, units of the initial risk")
    hold_seconds = models.FloatField(null=True, help_text="seconds from entry to exit")

    class Meta:
        db_table = "position_exits"
        ordering = ["-decided_at", "-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["trade"],
                condition=Q(status__in=(ExitStatus.PENDING, ExitStatus.DONE)),
                name="exit_one_open_or_final_a_trade",
            ),
            allowed("rule", ExitReason, "exit_rule"),
            allowed("status", ExitStatus, "exit_status"),
            models.CheckConstraint(condition=Q(quantity__gt=0, decided_price__gt=0), name="exit_values_positive"),
        ]
        indexes = [
            models.Index(fields=["book", "-decided_at", "-id"], name="exit_newest_of_a_book"),
            models.Index(fields=["-decided_at", "-id"], name="exit_newest"),
            models.Index(fields=["rule", "-decided_at", "-id"], name="exit_by_rule"),
        ]

    def __str__(self) -> str:
        return f"{self.rule} of {self.trade_id}"


class StopMove(models.Model):
    """A stop that was to move, from where to where, and whether the broker confirmed it. A stop never loosens."""

    book = book_field()
    trade = models.ForeignKey(Trade, models.CASCADE, related_name="stop_moves")
    status = word_field(StopMoveStatus, default=StopMoveStatus.OWED)
    old_stop = price_field()
    new_stop = price_field()
    evidence = models.JSONField(help_text=EVIDENCE)
    decided_at = models.DateTimeField()
    confirmed_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "stop_moves"
        ordering = ["-decided_at", "-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["trade"], condition=Q(status=StopMoveStatus.OWED), name="stop_move_one_owed_a_trade"
            ),
            allowed("status", StopMoveStatus, "stop_move_status"),
            models.CheckConstraint(condition=Q(old_stop__gt=0, new_stop__gt=0), name="stop_move_prices_positive"),
        ]
        indexes = [
            models.Index(fields=["book", "-decided_at", "-id"], name="stop_move_newest_of_a_book"),
            models.Index(fields=["-decided_at", "-id"], name="stop_move_newest"),
        ]

    def __str__(self) -> str:
        return f"{self.old_stop} to {self.new_stop}"


class RuleNote(models.Model):
    """The first time that a rule nearly acted on a trade, or would have acted and might not, with all that it knew."""

    book = book_field()
    trade = models.ForeignKey(Trade, models.CASCADE, related_name="rule_notes")
    rule = word_field(Rule)
    kind = word_field(RuleNoteKind)
    evidence = models.JSONField(help_text=EVIDENCE)
    noted_at = models.DateTimeField()

    class Meta:
        db_table = "rule_notes"
        ordering = ["-noted_at", "-id"]
        constraints = [
            models.UniqueConstraint(fields=["trade", "rule", "kind"], name="rule_note_first_of_its_kind"),
            allowed("rule", Rule, "rule_note_rule"),
            allowed("kind", RuleNoteKind, "rule_note_kind"),
        ]
        indexes = [
            models.Index(fields=["book", "-noted_at", "-id"], name="rule_note_newest_of_a_book"),
            models.Index(fields=["-noted_at", "-id"], name="rule_note_newest"),
        ]

    def __str__(self) -> str:
        return f"{self.rule} of {self.trade_id}: {self.kind}"


class ErrorNote(models.Model):
    """Unexpected failures of one kind in a session, after which trading went on: one row however often it failed.

    `subject`, `message` are of the last one. Nothing is known of failures of the last seconds before a process was
    killed, but for its log.
    """

    book = book_field()
    session = models.DateField(help_text="that of the day, or the last one before")
    job = models.CharField(max_length=32, help_text="what was being done")
    symbol = models.CharField(max_length=16, blank=True)
    error = models.CharField(max_length=64, help_text="class of the exception")
    subject = models.CharField(max_length=64, blank=True, help_text="the trade's signal key, the bar: of the last one")
    message = models.CharField(max_length=300, help_text="of the last one, without secrets")
    count = models.PositiveIntegerField(help_text="number of failures")
    first_at = models.DateTimeField()
    last_at = models.DateTimeField()

    class Meta:
        db_table = "error_notes"
        ordering = ["-last_at", "-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["book", "session", "job", "symbol", "error"], name="error_note_once_a_kind_and_session"
            ),
        ]
        indexes = [
            models.Index(fields=["book", "-last_at", "-id"], name="error_note_newest_of_a_book"),
            models.Index(fields=["-last_at", "-id"], name="error_note_newest"),
        ]

    def __str__(self) -> str:
        return f"{self.error} of {self.job}"

    @property
    def kind(self) -> tuple[date, str, str, str]:
        """What makes two of a book the same."""
        return self.session, self.job, self.symbol, self.error

    def after(self, before: "ErrorNote | None") -> "ErrorNote":
        """This one, with what was counted of its kind before."""
        if before is None:
            return self
        counted = copy(self)
        counted.count, counted.first_at = before.count + self.count, before.first_at
        return counted


class OrderIntent(models.Model):
    """The journal of orders: written before an order is sent, completed from what the broker says of it."""

    book = book_field()
    trade = models.ForeignKey(Trade, models.CASCADE, related_name="intents")
    client_order_id = models.CharField(max_length=128)
    step = word_field(IntentStep)
    attempt = models.PositiveSmallIntegerField(default=1, help_text="number of the try at this step")
    status = word_field(IntentStatus, default=IntentStatus.INTENDED)
    quantity = models.PositiveIntegerField(help_text="shares ordered")
    stop_price = price_field(null=True)
    created_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True)
    broker_order_id = models.CharField(max_length=64, blank=True)
    filled_quantity = models.PositiveIntegerField(default=0, help_text="shares")
    filled_price = price_field(null=True, help_text="average of the fills, dollars a share")
    error = models.CharField(max_length=300, blank=True)

    class Meta:
        db_table = "order_intents"
        ordering = ["-created_at", "-id"]
        constraints = [
            models.UniqueConstraint(fields=["book", "client_order_id"], name="intent_id_once_a_book"),
            allowed("step", IntentStep, "intent_step"),
            allowed("status", IntentStatus, "intent_status"),
            models.CheckConstraint(condition=Q(quantity__gt=0), name="intent_quantity_positive"),
            models.CheckConstraint(
                condition=Q(stop_price__isnull=True) | Q(stop_price__gt=0), name="intent_stop_price_positive"
            ),
        ]
        indexes = [
            models.Index(fields=["book", "-created_at", "-id"], name="intent_newest_of_a_book"),
            models.Index(fields=["-created_at", "-id"], name="intent_newest"),
            models.Index(fields=["status", "-created_at", "-id"], name="intent_by_status"),
            models.Index(fields=["client_order_id"], name="intent_by_our_id"),
            models.Index(fields=["broker_order_id"], name="intent_by_the_brokers_id"),
        ]

    def __str__(self) -> str:
        return self.client_order_id


class ExternalPosition(models.Model):
    """A position at the broker that no trade of ours explains, for as long as it was there."""

    book = book_field()
    symbol = models.CharField(max_length=16)
    quantity = models.IntegerField(help_text="shares, negative when short")
    price = price_field(null=True, help_text="the last that the broker told, dollars a share")
    first_seen_at = models.DateTimeField()
    last_seen_at = models.DateTimeField(help_text="when shares or price changed last")
    gone_at = models.DateTimeField(null=True, help_text="closed by its owner, or taken over as a trade")
    adopt = models.BooleanField(
        default=False, help_text="a user wants it to be traded as ours, from the next minute on"
    )
    trade = models.ForeignKey(Trade, models.SET_NULL, null=True, related_name="+", help_text="that took it over")

    class Meta:
        db_table = "external_positions"
        ordering = ["-first_seen_at", "-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["book", "symbol"], condition=Q(gone_at__isnull=True), name="external_position_once_a_symbol"
            )
        ]
        indexes = [models.Index(fields=["book", "-first_seen_at", "-id"], name="external_newest_of_a_book")]

    def __str__(self) -> str:
        return f"{self.quantity} {self.symbol}"


UNANSWERED = (InstructionState.WAITING, InstructionState.TAKEN)


class Instruction(models.Model):
    """What somebody asks of the process that trades a book, which alone sends orders. Not taken until `expires_at`, it
    is never carried out. `answer` says what came of it in a word, `signal_key` whose features, predictions and trade
    it led to, or which trade is to be closed."""

    book = book_field()
    kind = word_field(InstructionKind)
    symbol = models.CharField(max_length=16)
    side = word_field(Side, null=True, help_text="of a signal")
    stop = price_field(null=True, help_text="of a signal, dollars a share")
    target = price_field(null=True, help_text="of a signal, dollars a share")
    reason = models.CharField(max_length=LONGEST_REASON, blank=True, help_text="in the words of who asked")
    asked_by = models.CharField(max_length=150)
    asked_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    state = word_field(InstructionState, default=InstructionState.WAITING)
    taken_at = models.DateTimeField(null=True)
    answered_at = models.DateTimeField(null=True)
    answer = models.CharField(max_length=64, blank=True)
    signal_key = models.CharField(max_length=64, blank=True)

    class Meta:
        db_table = "instructions"
        ordering = ["-asked_at", "-id"]
        permissions = [
            ("send_signal", "Can have signals traded"),
            ("close_position", "Can have positions closed"),
            ("halt_trading", "Can halt and resume entries"),
        ]
        constraints = [
            allowed("kind", InstructionKind, "instruction_kind"),
            allowed("state", InstructionState, "instruction_state"),
            models.CheckConstraint(
                condition=Q(kind=InstructionKind.CLOSE, side__isnull=True, stop__isnull=True, target__isnull=True)
                | Q(kind=InstructionKind.SIGNAL, side__in=list(Side), stop__gt=0, target__gt=0),
                name="instruction_signal_has_a_plan",
            ),
        ]
        indexes = [
            models.Index(fields=["book", "-asked_at", "-id"], name="instruction_newest_of_a_book"),
            models.Index(fields=["book"], condition=Q(state__in=UNANSWERED), name="instruction_unanswered"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.symbol}"

    def state_at(self, now: datetime) -> InstructionState:
        """The state at a moment (aware UTC): what waits too long has expired, whether anybody has noted it or not."""
        late = self.state == InstructionState.WAITING and now >= self.expires_at
        return InstructionState.EXPIRED if late else InstructionState(self.state)


class WorkerLease(models.Model):
    """Who does a job that only one process may do. The epoch grows with each new holder, so that an old one notices."""

    book = book_field()
    name = models.CharField(max_length=64)
    holder = models.CharField(max_length=128)
    epoch = models.PositiveBigIntegerField(default=1, help_text="number of holders so far")
    acquired_at = models.DateTimeField()
    heartbeat_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    tick_seconds = models.FloatField(
        null=True, help_text="seconds of the longest look at the positions since the last heartbeat"
    )
    calls_a_tick = models.FloatField(null=True, help_text="requests to the broker per look, since the last heartbeat")
    last_error = models.CharField(max_length=300, blank=True)
    last_bar_at = models.DateTimeField(null=True, help_text="end of the last bar that the rules have seen")
    stale_symbols = models.PositiveIntegerField(null=True, help_text="symbols whose last bar is minutes old")
    quarantined_bars = models.PositiveIntegerField(
        null=True, help_text="bars of this session that were not believed and kept out"
    )
    watched = models.JSONField(default=list, help_text="the open trades as the rules last saw them")

    class Meta:
        db_table = "worker_leases"
        ordering = ["book", "name"]
        constraints = [models.UniqueConstraint(fields=["book", "name"], name="lease_once_a_job")]

    def __str__(self) -> str:
        return f"{self.name} of {self.book}"
