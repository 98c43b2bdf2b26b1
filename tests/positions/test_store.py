"""One contract for all stores: what the database refuses, memory refuses too, and so do the fault tests' tables."""

from datetime import timedelta
from decimal import Decimal

import pytest
from django.db import IntegrityError, OperationalError, connection
from django.test.utils import CaptureQueriesContext

from positions import store as store_module
from positions.models import OrderIntent, PositionExit, StopMove, Trade
from positions.store import Duplicate, MemoryStore, OrmStore, StoreUnavailable
from positions.words import (
    ExitReason,
    ExitStatus,
    IntentStep,
    Outcome,
    PlanDoubt,
    Side,
    StopMoveStatus,
    TradeStatus,
)
from tests.positions.fault_world import TableStore
from tests.positions.world import MINUTE, START, trade_plan

pytestmark = pytest.mark.django_db


@pytest.fixture(params=[OrmStore, MemoryStore, TableStore])
def store(request):
    return request.param("simulated")


def an_exit(trade: Trade) -> PositionExit:
    return PositionExit(
        book=trade.book,
        trade=trade,
        rule=ExitReason.TIME_LIMIT,
        evidence={},
        decided_at=START,
        decided_price=Decimal(100),
        quantity=10,
    )


def a_move(trade: Trade) -> StopMove:
    return StopMove(
        book=trade.book, trade=trade, old_stop=Decimal(99), new_stop=Decimal(100), evidence={}, decided_at=START
    )


def an_intent(trade: Trade, client_order_id: str = "one") -> OrderIntent:
    return OrderIntent(
        book=trade.book,
        trade=trade,
        client_order_id=client_order_id,
        step=IntentStep.ENTRY,
        quantity=10,
        created_at=START,
    )


def test_a_signal_is_traded_once(store):
    store.insert(trade_plan())
    with pytest.raises(Duplicate):
        store.insert(trade_plan())


def test_a_symbol_has_one_position_at_a_time(store):
    store.insert(trade_plan())
    with pytest.raises(Duplicate):
        store.insert(trade_plan(at=START + MINUTE))
    store.insert(trade_plan("F", at=START + MINUTE))
    assert set(store.live) == {"KO", "F"}


def test_a_trade_has_one_exit_under_way_until_it_is_superseded(store):
    trade = trade_plan()
    store.insert(trade)
    first = an_exit(trade)
    store.insert(first)
    with pytest.raises(Duplicate):
        store.insert(an_exit(trade))
    first.status = ExitStatus.SUPERSEDED
    store.update(first, "status")
    store.insert(an_exit(trade))


def test_a_trade_owes_one_stop_move_at_a_time(store):
    trade = trade_plan()
    store.insert(trade)
    first = a_move(trade)
    store.insert(first)
    with pytest.raises(Duplicate):
        store.insert(a_move(trade))
    first.status = StopMoveStatus.CONFIRMED
    store.update(first, "status")
    store.insert(a_move(trade))


def test_an_order_id_is_used_once(store):
    trade = trade_plan()
    store.insert(trade)
    store.insert(an_intent(trade))
    with pytest.raises(Duplicate):
        store.insert(an_intent(trade))


def test_a_trade_that_has_ended_makes_room_for_the_next(store):
    trade = trade_plan()
    store.insert(trade)
    trade.status = TradeStatus.CANCELLED
    store.update(trade, "status")
    assert store.live == {}
    store.insert(trade_plan(at=START + MINUTE))


def test_what_has_ended_is_in_the_database_with_all_its_rows(store):
    trade = trade_plan()
    store.insert(trade)
    store.insert(an_intent(trade))
    superseded, final = an_exit(trade), an_exit(trade)
    store.insert(superseded)
    superseded.status = ExitStatus.SUPERSEDED
    store.update(superseded, "status")
    store.insert(final)
    final.status = ExitStatus.DONE
    store.update(final, "status")
    store.update(closed(trade), "status", "outcome", "exit_reason", "pnl", "exited_at")
    if isinstance(store, MemoryStore):
        store.flush()
    if isinstance(store, TableStore):
        assert store.tables.of(Trade)[0]["status"] == TradeStatus.CLOSED
        assert sorted(each["status"] for each in store.tables.of(PositionExit)) == ["done", "superseded"]
        return
    saved = Trade.objects.get()
    assert saved.status == TradeStatus.CLOSED
    assert saved.intents.count() == 1
    assert sorted(saved.exits.values_list("status", flat=True)) == ["done", "superseded"]


def entered(trade: Trade) -> Trade:
    trade.status, trade.entered_at, trade.entry_price = TradeStatus.OPEN, START, trade.planned_entry
    trade.quantity, trade.risk_per_share = trade.planned_quantity, Decimal(1)
    return trade


def closed(trade: Trade) -> Trade:
    trade.status, trade.outcome, trade.exit_reason = TradeStatus.CLOSED, Outcome.LOSS, ExitReason.TIME_LIMIT
    trade.pnl, trade.exited_at = Decimal(-1), START
    return trade


def plan_ended(trade: Trade) -> Trade:
    trade.plan_outcome, trade.plan_r, trade.plan_exit_reason = Outcome.WIN, 1.98, ExitReason.TARGET
    trade.plan_ended_at, trade.plan_doubt = START + MINUTE, PlanDoubt.AT_LAST_PRICE
    return trade


@pytest.mark.parametrize("store", [OrmStore, MemoryStore], indirect=True)
def test_a_plan_that_ends_after_its_trade_is_in_the_row_and_leaves_the_next_trade_of_the_symbol_alone(store):
    first, second = trade_plan(), trade_plan(at=START + MINUTE)
    store.insert(first)
    store.update(entered(first), "status", "entered_at", "entry_price", "quantity", "risk_per_share")
    store.update(closed(first), "status", "outcome", "exit_reason", "pnl", "exited_at")
    store.insert(second)
    store.plans_ended([plan_ended(first)])
    assert store.live["KO"].trade is second
    if isinstance(store, MemoryStore):
        store.flush()
    saved = Trade.objects.get(signal_key=first.signal_key)
    assert (saved.plan_outcome, saved.plan_r, saved.plan_exit_reason) == (Outcome.WIN, 1.98, ExitReason.TARGET)
    assert (saved.plan_ended_at, saved.plan_doubt) == (START + MINUTE, PlanDoubt.AT_LAST_PRICE)


@pytest.mark.parametrize("store", [OrmStore, MemoryStore], indirect=True)
def test_a_plan_is_unfinished_from_its_entry_to_its_end_whether_the_trade_is_closed_or_not(store):
    trade = trade_plan()
    store.insert(trade)
    assert store.unfinished_plans(trade.session) == []
    store.update(entered(trade), "status", "entered_at", "entry_price", "quantity", "risk_per_share")
    assert store.unfinished_plans(trade.session) == [trade]
    assert store.unfinished_plans(trade.session + timedelta(days=1)) == []
    store.update(closed(trade), "status", "outcome", "exit_reason", "pnl", "exited_at")
    assert store.unfinished_plans(trade.session) == [trade]
    store.plans_ended([plan_ended(trade)])
    assert store.unfinished_plans(trade.session) == []


@pytest.fixture(params=[OrmStore, TableStore])
def two_processes(request):
    """Two stores over the same rows, each with a trade that owes a move, has an exit under way and one order."""
    first = request.param("simulated")
    trade = entered(trade_plan())
    trade.stop_price = Decimal(99)
    first.insert(trade, an_intent(trade))
    first.insert(an_exit(trade))
    first.insert(a_move(trade))
    return first, OrmStore("simulated") if request.param is OrmStore else TableStore("simulated", first.tables)


def test_rows_of_one_insert_are_stored_all_or_none(two_processes):
    first, _ = two_processes
    trade = first.live["KO"].trade
    with pytest.raises(Duplicate):
        first.insert(an_intent(trade, "two"), an_intent(trade, "one"))
    assert [intent.client_order_id for intent in first.live["KO"].intents] == ["one"]
    first.insert(an_intent(trade, "two"))


def test_an_order_is_not_journaled_by_a_process_that_does_not_know_of_the_last_one(two_processes):
    first, second = two_processes
    first.insert(an_intent(first.live["KO"].trade, "two"))
    with pytest.raises(Duplicate):
        second.insert(an_intent(second.live["KO"].trade, "three"))
    second.reload("KO")
    second.insert(an_intent(second.live["KO"].trade, "three"))


def test_nothing_is_added_to_a_trade_that_another_process_has_ended_and_reading_it_again_says_so(two_processes):
    first, second = two_processes
    first.update(closed(first.live["KO"].trade), "status", "outcome", "exit_reason", "pnl", "exited_at")
    stale = second.live["KO"].trade
    with pytest.raises(Duplicate):
        second.insert(an_intent(stale, "two"))
    stale.status = TradeStatus.EXITING
    with pytest.raises(Duplicate):
        second.update(stale, "status")
    ended = second.reload("KO")
    assert ended is stale
    assert (ended.status, ended.outcome) == (TradeStatus.CLOSED, Outcome.LOSS)
    assert second.live == {}


@pytest.mark.parametrize(
    ("of", "field", "further", "behind"),
    [
        ("trade", "stop_price", Decimal("100.02"), Decimal(99)),
        ("trade", "quantity", 11, 10),
        ("intent", "filled_quantity", 10, 5),
        ("intent", "finished_at", START, None),
        ("move", "status", StopMoveStatus.CONFIRMED, StopMoveStatus.REFUSED),
    ],
)
def test_a_stale_process_does_not_take_back_what_another_one_wrote(two_processes, of, field, further, behind):
    def row_of(store):
        mine = store.live["KO"]
        return {"trade": mine.trade, "intent": mine.intents[0], "move": mine.moves[0]}[of]

    first, second = two_processes
    setattr(row_of(first), field, further)
    first.update(row_of(first), field)
    setattr(row_of(second), field, behind)
    with pytest.raises(Duplicate):
        second.update(row_of(second), field)
    second.reload("KO")
    assert getattr(row_of(second), field) == further


def test_changes_that_belong_together_are_saved_all_or_none(two_processes):
    first, second = two_processes
    first.live["KO"].moves[0].status = StopMoveStatus.CONFIRMED
    first.update(first.live["KO"].moves[0], "status")
    trade, move = second.live["KO"].trade, second.live["KO"].moves[0]
    trade.stop_price, move.status = Decimal("100.02"), StopMoveStatus.REFUSED
    with pytest.raises(Duplicate):
        second.update_all([(trade, ("stop_price",)), (move, ("status",))])
    second.reload("KO")
    assert second.live["KO"].trade.stop_price == 99


def test_a_database_that_does_not_answer_is_told_from_a_row_that_is_wrong(monkeypatch):
    store = OrmStore("simulated")
    trade = trade_plan()

    def down(*args, **options):
        raise OperationalError("server closed the connection unexpectedly")

    with monkeypatch.context() as broken:
        broken.setattr(store_module, "run", down)
        with pytest.raises(StoreUnavailable):
            store.insert(trade)
    assert store.live == {}
    store.insert(trade)


def test_after_a_restart_the_live_trades_are_back_with_their_rows():
    store = OrmStore("simulated")
    trade = trade_plan()
    for row in (trade, an_intent(trade), an_exit(trade), a_move(trade)):
        store.insert(row)
    OrmStore("paper:x").insert(trade_plan(book="paper:x"))
    mine = OrmStore("simulated").live["KO"]
    assert mine.trade == trade
    assert [intent.client_order_id for intent in mine.intents] == ["one"]
    assert mine.exit is not None
    assert len(mine.moves) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"side": "both"},
        {"planned_quantity": 0},
        {"initial_stop": Decimal(101)},
        {"target": Decimal(99)},
        {"planned_entry": Decimal(-1), "initial_stop": Decimal(-2)},
        {"outcome": Outcome.WIN},
        {"status": TradeStatus.CLOSED},
        {"plan_outcome": Outcome.WIN},
        {"plan_doubt": PlanDoubt.BOTH_TOUCHED},
        {"plan_outcome": Outcome.WIN, "plan_r": 1.0, "plan_exit_reason": ExitReason.TARGET, "plan_ended_at": START},
    ],
    ids=str,
)
def test_the_database_refuses_a_trade_that_cannot_be(wrong):
    trade = trade_plan(side=Side.LONG)
    for name, value in wrong.items():
        setattr(trade, name, value)
    with pytest.raises(IntegrityError):
        trade.save()


def test_a_row_stored_with_its_new_trade_refers_to_that_very_trade():
    trade = trade_plan()
    intent = an_intent(trade)
    OrmStore("simulated").insert(trade, intent)
    assert intent.trade is trade
    assert OrderIntent.objects.get().trade == trade


def test_an_order_and_the_changes_it_takes_along_are_stored_together_or_not_at_all():
    store = OrmStore("simulated")
    trade = trade_plan()
    store.insert(trade, an_intent(trade))
    trade.quantity, trade.stop_price = 10, Decimal(99)
    store.update(trade, "quantity", "stop_price")
    trade.stop_price = Decimal(98)
    with pytest.raises(Duplicate):
        store.insert(an_intent(trade, "two"), changes=[(trade, ("stop_price",))])
    assert OrderIntent.objects.count() == 1
    trade.stop_price = Decimal("99.5")
    store.insert(an_intent(trade, "two"), changes=[(trade, ("stop_price",))])
    assert OrderIntent.objects.count() == 2
    assert Trade.objects.get().stop_price == Decimal("99.5")


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor != "sqlite", reason="PostgreSQL forces every commit to the disk")
def test_an_intent_is_forced_to_the_disk_before_its_order_can_be_sent():
    store = OrmStore("simulated")
    trade = trade_plan()
    with CaptureQueriesContext(connection) as asked:
        store.insert(trade, an_intent(trade))
        store.insert(an_intent(trade, "two"))
        store.update(trade, "status")
    levels = [query["sql"] for query in asked if "synchronous" in query["sql"]]
    assert levels == ["PRAGMA synchronous = FULL", "PRAGMA synchronous = FULL", "PRAGMA synchronous = NORMAL"]
