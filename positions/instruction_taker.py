"""Carries out what was asked of a book's trading process: signals are considered, positions closed."""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from django.db import InterfaceError, OperationalError, connection

from positions.isolation import Work
from positions.loop import Desk, TradingLoop
from positions.market.calendar import Session
from positions.models import UNANSWERED, Instruction
from positions.rules import ExitDecision
from positions.strategy import OnlyWatching, Signal
from positions.words import ExitReason, InstructionKind, InstructionState, Side, TradeStatus

#: No signal is entered at a price that is older.
OLDEST_PRICE = timedelta(minutes=2)


class Answer(NamedTuple):
    """`word` says why not, or is "" or says what was found."""

    state: InstructionState
    word: str = ""


def _refused(word: str) -> Answer:
    return Answer(InstructionState.REFUSED, word)


class InstructionTaker:
    """Each instruction is carried out at most once: it is claimed before anything is done. What was claimed and is not
    in hand any more, because it failed or its process ended, is `unknown` from the next look on."""

    def __init__(self, desk: Desk, loop: TradingLoop) -> None:
        self._desk = desk
        self._loop = loop
        self._begun: list[Instruction] = []

    def carry_out(self, now: datetime, session: Session) -> None:
        """Take what waits, and go on with what has begun. `now` is the market's time, `session` the one that is open or
        comes next. Without a database nothing is taken, and what waits expires."""
        try:
            taken = [*self._begun, *self._claimed(datetime.now(UTC))]
        except (OperationalError, InterfaceError):
            connection.close()
            return
        self._begun = []
        for instruction in taken:
            with self._desk.isolate(Work("instructions", instruction.symbol, f"number {instruction.pk}")):
                self._go_on(instruction, now, session)

    def _claimed(self, wall: datetime) -> list[Instruction]:
        in_hand = [instruction.pk for instruction in self._begun]
        unanswered = Instruction.objects.filter(book=self._desk.book, state__in=UNANSWERED).exclude(pk__in=in_hand)
        claimed = []
        for instruction in unanswered.order_by("id"):
            same = unanswered.filter(pk=instruction.pk, state=instruction.state)
            if instruction.state == InstructionState.TAKEN:
                same.update(state=InstructionState.UNKNOWN, answered_at=wall)
            elif instruction.expires_at <= wall:
                same.update(state=InstructionState.EXPIRED, answered_at=wall)
            elif same.update(state=InstructionState.TAKEN, taken_at=wall):
                claimed.append(instruction)
        return claimed

    def _go_on(self, instruction: Instruction, now: datetime, session: Session) -> None:
        if not session.open <= now < session.close:
            answer: Answer | None = _refused("market_closed")
        elif instruction.kind == InstructionKind.CLOSE:
            answer = self._close(instruction)
        else:
            answer = self._consider(instruction, now)
        if answer is None:
            self._begun.append(instruction)
            return
        Instruction.objects.filter(pk=instruction.pk).update(
            state=answer.state,
            answer=answer.word,
            answered_at=datetime.now(UTC),
            signal_key=instruction.signal_key,
        )

    def _close(self, instruction: Instruction) -> Answer | None:
        """None while an entry is being cancelled: what it has filled until then is closed next."""
        mine = self._desk.store.live.get(instruction.symbol)
        if mine is None or mine.trade.signal_key != instruction.signal_key:
            given_up = instruction.state == InstructionState.TAKEN
            return Answer(InstructionState.ACCEPTED, "trade_over") if given_up else _refused("trade_over")
        if mine.trade.status == TradeStatus.ENTERING:
            instruction.state = InstructionState.TAKEN
            self._desk.execution.cancel_entry(mine)
            return None
        if mine.exit is not None:
            return _refused("leaving_already")
        evidence = {"asked_by": instruction.asked_by, "reason": instruction.reason, "instruction": instruction.pk}
        begun = self._desk.exits.execute_early_exit(mine, ExitDecision(ExitReason.MANUAL, evidence))
        return Answer(InstructionState.ACCEPTED) if begun or mine.exit is not None else _refused("not_possible_now")

    def _consider(self, instruction: Instruction, now: datetime) -> Answer:
        """Make it a signal of the last completed bar, and have it considered as the strategy's own are."""
        desk, bank = self._desk, self._desk.bank
        row = bank.row_of.get(instruction.symbol)
        if isinstance(desk.strategy, OnlyWatching):
            return _refused("only_watching")
        if row is None or not bank.tradable[row]:
            return _refused("not_on_watchlist")
        if not bank.fresh[row] or now - bank.now > OLDEST_PRICE:
            return _refused("no_bar")
        if bank.minutes_to_close <= desk.exit_settings().flatten_minutes:
            return _refused("session_ends")
        signal = Signal(
            symbol=instruction.symbol,
            row=row,
            side=Side(instruction.side),
            at=bank.now,
            session=bank.session.day,
            entry=float(bank.close[row]),
            stop=float(instruction.stop or 0),
            target=float(instruction.target or 0),
            source=f"api:{instruction.asked_by}"[:128],
        )
        instruction.signal_key = signal.key
        reason = self._loop.consider(signal)
        mine = desk.store.live.get(signal.symbol)
        if reason == "refused" and mine is not None and mine.trade.signal_key == signal.key:
            reason = ""  # the entry was broken off and is owed: it goes on
        return _refused(reason) if reason else Answer(InstructionState.ACCEPTED)
