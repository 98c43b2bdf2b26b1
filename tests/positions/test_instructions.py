"""What is asked of the trading process is carried out by it once, in time, or not at all."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import OperationalError, connection

from positions.instruction_taker import InstructionTaker
from positions.instructions import LIFETIME, Asked, Plan, ask_close, ask_signal
from positions.isolation import Isolation
from positions.market.calendar import Session
from positions.models import Instruction, PositionExit, Trade
from positions.rules import RiskSettings
from positions.strategy import OnlyWatching, Opinion
from positions.trader import next_session
from positions.words import ExitReason, Side, TradeStatus
from tests.positions.stage import FLAT, START, Stage
from tests.positions.world import MINUTE, NO_BAR

pytestmark = pytest.mark.django_db

LONG = Plan(Side.LONG, Decimal(99), Decimal(102))
BOOK = "simulated"


def by_ada(ago: timedelta = timedelta(0)) -> Asked:
    return Asked("ada", datetime.now(UTC) - ago, "news")


class Desk:
    """A desk after five flat minutes, and what it is asked."""

    def __init__(self, **options: object) -> None:
        self.stage = Stage(**options)
        for _ in range(5):
            self.stage.bar(FLAT, FLAT)
        self.taker = InstructionTaker(self.stage.desk, self.stage.loop)

    def ask(self, symbol: str = "KO", plan: Plan = LONG, ago: timedelta = timedelta(0)) -> Instruction:
        return ask_signal(BOOK, symbol, plan, by_ada(ago))

    def close(self) -> Instruction:
        return ask_close(Trade.objects.latest("signal_at"), by_ada())

    def look(self, session: Session | None = None) -> None:
        self.taker.carry_out(self.stage.now, session or self.stage.session)

    def told(self, instruction: Instruction) -> tuple[str, str]:
        self.look()
        instruction.refresh_from_db()
        return instruction.state, instruction.answer


def test_a_signal_goes_the_way_of_the_strategys_own() -> None:
    desk = Desk()
    asked = desk.ask()
    assert desk.told(asked) == ("accepted", "")
    trade = Trade.objects.get()
    assert (trade.signal_key, trade.strategy, trade.planned_entry) == (asked.signal_key, "api:ada", Decimal(100))
    assert (trade.initial_stop, trade.target, trade.signal_at) == (LONG.stop, LONG.target, desk.stage.now)
    assert desk.stage.listener.decisions == [""]
    desk.stage.bar(FLAT)
    assert desk.stage.world.protected("KO") == trade.planned_quantity


def test_what_is_against_a_signal_is_the_answer() -> None:
    desk = Desk(protections=True)
    desk.stage.listener.opinion = Opinion(take=False, reason="model_skips")
    assert desk.told(desk.ask()) == ("refused", "model_skips")
    desk.stage.listener.opinion = Opinion(take=True)
    assert desk.told(desk.ask("F", plan=LONG._replace(target=Decimal("99.5")))) == ("refused", "invalid_plan")
    desk.stage.risk = RiskSettings(max_open_positions=0)
    assert desk.told(desk.ask("F", plan=Plan(Side.SHORT, Decimal(101), Decimal(98)))) == (
        "refused",
        "max_open_positions",
    )
    assert desk.stage.listener.decisions == ["model_skips", "invalid_plan", "max_open_positions"]
    assert not Trade.objects.exists()


def test_the_same_plan_twice_within_a_bar_is_one_signal() -> None:
    desk = Desk()
    first, second = desk.ask(), desk.ask()
    assert desk.told(first) == ("accepted", "")
    assert desk.told(second) == ("refused", "given_already")
    assert len(desk.stage.listener.decisions) == 1


def test_without_a_market_to_judge_by_nothing_is_considered() -> None:
    desk = Desk()
    assert desk.told(desk.ask("IBM")) == ("refused", "not_on_watchlist")
    desk.stage.bar(FLAT, NO_BAR)
    assert desk.told(desk.ask("F")) == ("refused", "no_bar")
    desk.stage.now += 3 * MINUTE
    assert desk.told(desk.ask()) == ("refused", "no_bar")
    closed = desk.ask()
    desk.look(next_session(START + timedelta(days=1)))
    closed.refresh_from_db()
    assert (closed.state, closed.answer) == ("refused", "market_closed")
    assert not desk.stage.listener.decisions


def test_near_the_close_nothing_is_entered() -> None:
    desk = Desk(minutes=10)
    assert desk.told(desk.ask()) == ("refused", "session_ends")


def test_who_only_watches_enters_nothing_and_closes_what_is_asked() -> None:
    desk = Desk()
    trade = desk.stage.enter()
    desk.taker = InstructionTaker(replace(desk.stage.desk, strategy=OnlyWatching()), desk.stage.loop)
    assert desk.told(desk.ask("F")) == ("refused", "only_watching")
    assert desk.told(desk.close()) == ("accepted", "")
    desk.stage.bar(FLAT)
    trade.refresh_from_db()
    assert trade.status == TradeStatus.CLOSED


def test_a_position_is_closed_once() -> None:
    desk = Desk()
    trade = desk.stage.enter()
    first, second = desk.close(), desk.close()
    assert desk.told(first) == ("accepted", "")
    assert desk.told(second) == ("refused", "leaving_already")
    desk.stage.bar(FLAT)
    trade.refresh_from_db()
    assert (trade.status, trade.exit_reason) == (TradeStatus.CLOSED, ExitReason.MANUAL)
    assert trade.exits.get().evidence == {"asked_by": "ada", "reason": "news", "instruction": first.pk}
    assert desk.told(desk.close()) == ("refused", "trade_over")


def test_a_later_trade_in_the_symbol_is_not_closed_by_what_was_asked_of_an_earlier_one() -> None:
    desk = Desk()
    desk.stage.enter()
    assert desk.told(desk.close()) == ("accepted", "")
    late = desk.close()
    desk.stage.bar(FLAT)
    later = desk.stage.enter()
    assert desk.told(late) == ("refused", "trade_over")
    desk.stage.bar(FLAT)
    later.refresh_from_db()
    assert later.status == TradeStatus.OPEN


def test_an_entry_that_has_not_filled_is_given_up() -> None:
    desk = Desk()
    desk.ask()
    desk.look()
    close = desk.close()
    assert desk.told(close) == ("taken", "")
    desk.stage.loop.settle()
    assert desk.told(close) == ("accepted", "trade_over")
    desk.stage.bar(FLAT)
    assert Trade.objects.get().status == TradeStatus.CANCELLED


def test_what_waited_too_long_is_never_carried_out() -> None:
    desk = Desk()
    late = desk.ask(ago=LIFETIME)
    assert late.state_at(datetime.now(UTC)) == "expired"
    assert desk.told(late) == ("expired", "")
    assert not Trade.objects.exists()


def test_what_another_process_takes_first_is_left_to_it() -> None:
    desk = Desk()
    asked = desk.ask()
    first = []

    def other_process(execute: Any, sql: str, *arguments: Any) -> Any:
        if sql.startswith("UPDATE") and not first:
            first.append(sql)
            Instruction.objects.filter(pk=asked.pk).update(state="taken")
        return execute(sql, *arguments)

    with connection.execute_wrapper(other_process):
        desk.look()
    assert first
    assert not Trade.objects.exists()


def test_instructions_for_another_book_are_not_seen() -> None:
    desk = Desk()
    other = ask_signal("paper:2", "KO", LONG, by_ada())
    assert desk.told(other) == ("waiting", "")


def test_without_a_database_nothing_is_taken_and_the_desk_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    asked = desk.ask()

    def away(**wanted: object) -> None:
        raise OperationalError("away")

    monkeypatch.setattr("positions.instruction_taker.connection.close", lambda: None)  # the test's own
    with monkeypatch.context() as patch:
        patch.setattr(Instruction.objects, "filter", away)
        desk.look()
    asked.refresh_from_db()
    assert asked.state == "waiting"


def test_a_look_without_instructions_costs_one_query(django_assert_num_queries: object) -> None:
    desk = Desk()
    with django_assert_num_queries(1):
        desk.look()


def test_what_a_process_had_begun_when_it_ended_is_unknown_to_the_next_and_not_done_again() -> None:
    desk = Desk()
    desk.stage.enter()
    asked = desk.close()
    Instruction.objects.filter(pk=asked.pk).update(state="taken")
    desk.taker = InstructionTaker(desk.stage.desk, desk.stage.loop)
    assert desk.told(asked) == ("unknown", "")
    assert asked.answered_at is not None
    assert not PositionExit.objects.exists()


def test_what_failed_under_way_is_unknown_and_the_others_are_carried_out(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    isolated = replace(desk.stage.desk, isolate=Isolation("simulated", desk.stage.world.clock).of)
    desk.taker = InstructionTaker(isolated, desk.stage.loop)
    failing, other = desk.ask("KO"), desk.ask("IBM")

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(desk.stage.listener, "on_signal", fail)
        assert desk.told(failing) == ("taken", "")
    assert desk.told(failing) == ("unknown", "")
    assert desk.told(other) == ("refused", "not_on_watchlist")
