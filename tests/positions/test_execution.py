from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from structlog.testing import capture_logs

from positions.broker.port import (
    Listing,
    NotNow,
    OrderKind,
    OrderRequest,
    OrderSide,
    OutcomeUnknown,
    PositionIntent,
    Rejected,
    Unavailable,
)
from positions.execution import MOST_ATTEMPTS, MOVE_PAUSE, RELEASE_PAUSE
from positions.isolation import Isolation
from positions.models import OrderIntent, PositionExit, StopMove
from positions.rules import ExitDecision
from positions.store import OrmStore
from positions.words import ExitReason, ExitStatus, IntentStatus, Outcome, Side, StopMoveStatus, TradeStatus
from tests.positions.world import START, World, batch, trade_plan

pytestmark = pytest.mark.django_db

LEAVE = ExitDecision(ExitReason.TIME_LIMIT, {"minutes": 15})
ABOVE = (101.5, 101.6, 101.4, 101.5)
QUIET = (100.0, 100.2, 99.8, 100.0)


@pytest.fixture
def world():
    return World(OrmStore("simulated"))


@pytest.fixture
def in_trade(world):
    world.execution.enter(trade_plan())
    world.bar(QUIET)
    return world


def test_an_entry_fills_at_the_next_open_and_is_protected_at_once(in_trade):
    trade = in_trade.store.live["KO"].trade
    assert (trade.status, trade.entry_price, trade.quantity) == (TradeStatus.OPEN, Decimal(100), 10)
    assert trade.entered_at == START
    assert trade.risk_per_share == 1
    assert trade.stop_price == 99
    assert in_trade.protected() == in_trade.held() == 10
    assert trade.unprotected_seconds == 0


def test_a_listener_that_fails_keeps_no_share_from_its_stop_and_no_trade_from_its_end(world):
    def fail(trade):
        raise RuntimeError("no such symbol here")

    isolation = Isolation("simulated", world.clock)
    world.execution.isolate = isolation.of
    for listeners in ("entered_listeners", "closing_listeners", "closed_listeners"):
        getattr(world.execution, listeners).insert(0, fail)
    world.execution.enter(trade_plan())
    world.bar(QUIET)
    assert world.protected() == world.held() == 10
    assert "no such symbol here" in isolation.last_error
    world.execution.exit(world.store.live["KO"], LEAVE, 100.0)
    world.bar(QUIET)
    assert world.held() == 0
    assert [trade.exit_reason for trade in world.closed] == [ExitReason.TIME_LIMIT]  # who listens next is told
    assert not world.store.live


def test_the_stop_ends_the_trade_with_its_costs(in_trade):
    in_trade.bar((99.9, 100.0, 98.9, 99.5))
    (trade,) = in_trade.closed
    assert (trade.exit_reason, trade.exit_price, trade.outcome) == (ExitReason.STOP, Decimal(99), Outcome.LOSS)
    assert trade.fees == Decimal("0.20")
    assert trade.pnl == Decimal("-10.20")
    assert trade.r_multiple == pytest.approx(-1.02)
    assert in_trade.held() == 0
    assert in_trade.exchange.open_orders() == {}
    assert PositionExit.objects.count() == 0


def test_a_short_trade_mirrors_a_long_one(world):
    world.execution.enter(trade_plan(side=Side.SHORT))
    world.bar(QUIET)
    assert world.held() == -10
    world.execution.exit(world.store.live["KO"], LEAVE, 100.0)
    world.bar((98.0, 98.5, 97.5, 98.0))
    (trade,) = world.closed
    assert trade.pnl == Decimal("19.80")
    assert trade.outcome == Outcome.WIN


def test_an_exit_cancels_the_stop_sells_what_is_held_and_records_why(in_trade):
    assert in_trade.execution.exit(in_trade.store.live["KO"], LEAVE, 100.0)
    in_trade.bar((100.5, 100.6, 100.4, 100.5))
    (trade,) = in_trade.closed
    assert (trade.exit_reason, trade.exit_price) == (ExitReason.TIME_LIMIT, Decimal("100.5"))
    recorded = PositionExit.objects.get()
    assert recorded.status == ExitStatus.DONE
    assert recorded.evidence == {"minutes": 15}
    assert recorded.pnl == trade.pnl == Decimal("4.80")
    assert recorded.hold_seconds == 60
    assert in_trade.exchange.open_orders() == {}


def test_a_trade_leaves_once_however_often_it_is_told_to(in_trade):
    mine = in_trade.store.live["KO"]
    assert in_trade.execution.exit(mine, LEAVE, 100.0)
    assert not in_trade.execution.exit(mine, LEAVE, 100.0)
    assert len(in_trade.exchange.open_orders()) == 1


def test_an_entry_filled_beyond_its_stop_leaves_at_the_market(world):
    world.execution.enter(trade_plan())
    world.bar((98.5, 98.8, 98.4, 98.6))
    world.bar((98.7, 98.8, 98.6, 98.7))
    (trade,) = world.closed
    assert trade.exit_reason == ExitReason.STOP
    assert trade.exit_price == Decimal("98.7")
    assert trade.risk_per_share == 1
    assert "stop_refused" in PositionExit.objects.get().evidence


def test_a_stop_that_moves_is_replaced_and_then_confirmed(in_trade):
    mine = in_trade.store.live["KO"]
    in_trade.bar((101.5, 101.6, 101.4, 101.5))
    assert in_trade.execution.move_to_breakeven(mine, Decimal("100.02"), {"profit_r": 1.5})
    in_trade.settle()
    assert mine.trade.stop_price == Decimal("100.02")
    assert mine.trade.breakeven_set
    assert StopMove.objects.get().status == StopMoveStatus.CONFIRMED
    assert in_trade.protected() == 10
    in_trade.bar((101.0, 101.0, 99.9, 100.0))
    (trade,) = in_trade.closed
    assert (trade.exit_reason, trade.pnl, trade.outcome) == (ExitReason.BREAKEVEN_STOP, Decimal(0), Outcome.LOSS)


def test_a_stop_move_that_is_refused_leaves_the_old_stop_standing(in_trade):
    mine = in_trade.store.live["KO"]
    assert not in_trade.execution.move_to_breakeven(mine, Decimal("100.02"), {})
    assert StopMove.objects.get().status == StopMoveStatus.REFUSED
    assert mine.trade.stop_price == 99
    assert not mine.trade.breakeven_set
    assert in_trade.protected() == 10


def test_a_stop_move_that_is_refused_for_now_is_owed_and_made_once_the_market_is_open(in_trade):
    mine = in_trade.store.live["KO"]
    in_trade.bar(ABOVE)
    honest = in_trade.exchange.replace_stop
    asked = []

    def after_hours(*args):
        asked.append(args)
        raise NotNow("cannot replace order in accepted status")

    in_trade.exchange.replace_stop = after_hours
    assert not in_trade.execution.move_to_breakeven(mine, Decimal("100.02"), {})
    for _ in range(60):
        in_trade.clock.sleep_until(in_trade.clock.now() + timedelta(seconds=10))
        in_trade.settle()
    assert len(asked) == 1 + 600 / MOVE_PAUSE.total_seconds()
    assert (mine.trade.stop_price, in_trade.protected(), StopMove.objects.get().status) == (99, 10, "owed")
    assert not in_trade.execution.urgent
    in_trade.exchange.replace_stop = honest
    in_trade.clock.sleep_until(in_trade.clock.now() + MOVE_PAUSE)
    in_trade.settle()
    assert (mine.trade.stop_price, in_trade.protected()) == (Decimal("100.02"), 10)
    assert StopMove.objects.get().status == StopMoveStatus.CONFIRMED
    assert OrderIntent.objects.filter(step="move").count() == 1


def test_a_stop_move_that_is_owed_does_not_hold_up_an_exit(in_trade):
    in_trade.bar(ABOVE)

    def after_hours(*args):
        raise NotNow("cannot replace order in accepted status")

    in_trade.exchange.replace_stop = after_hours
    in_trade.execution.move_to_breakeven(in_trade.store.live["KO"], Decimal("100.02"), {})
    in_trade.execution.exit(in_trade.store.live["KO"], LEAVE, 101.5)
    in_trade.bar(ABOVE)
    assert [trade.exit_reason for trade in in_trade.closed] == [ExitReason.TIME_LIMIT]
    assert StopMove.objects.get().status == StopMoveStatus.REFUSED


def test_a_position_closed_by_hand_ends_as_manual_at_the_price_it_was_sold_for(in_trade):
    (stop,) = in_trade.exchange.open_orders().values()
    in_trade.exchange.cancel(stop.id)
    in_trade.exchange.submit(
        OrderRequest("hand", "KO", OrderSide.SELL, OrderKind.MARKET, 10, PositionIntent.SELL_TO_CLOSE)
    )
    in_trade.bar((100.6, 100.7, 100.5, 100.6))
    in_trade.bar(QUIET)
    (trade,) = in_trade.closed
    assert (trade.exit_reason, trade.exit_price) == (ExitReason.MANUAL, Decimal("100.6"))
    assert in_trade.exchange.open_orders() == {}
    assert PositionExit.objects.count() == 0


def test_a_stop_cancelled_behind_our_back_is_placed_again(in_trade):
    (stop,) = in_trade.exchange.open_orders().values()
    in_trade.exchange.cancel(stop.id)
    in_trade.bar(QUIET)
    assert in_trade.protected() == 10
    assert [intent.attempt for intent in in_trade.store.live["KO"].intents if intent.step == "stop"] == [1, 2]


def test_an_entry_that_never_filled_ends_as_cancelled(world):
    world.execution.enter(trade_plan())
    world.execution.cancel_entry(world.store.live["KO"])
    world.settle()
    assert world.store.live == {}
    assert OrderIntent.objects.get().status == IntentStatus.CANCELLED


class Faulty:
    """The exchange behind a line that loses the request or the answer of the next write."""

    def __init__(self, world: World, error: Exception, *, lands: bool) -> None:
        self._exchange, self._error, self._lands = world.exchange, error, lands
        world.execution._broker = self

    def submit(self, request):
        if self._error is None:
            return self._exchange.submit(request)
        error, self._error = self._error, None
        if self._lands:
            self._exchange.submit(request)
        raise error

    def __getattr__(self, name):
        return getattr(self._exchange, name)


@pytest.mark.parametrize(
    ("error", "lands"),
    [(Unavailable("refused"), False), (OutcomeUnknown("timeout"), False), (OutcomeUnknown("timeout"), True)],
    ids=["request lost, known", "request lost, unknown", "answer lost"],
)
def test_an_exit_whose_answer_was_lost_is_looked_up_and_sold_exactly_once(in_trade, error, lands):
    Faulty(in_trade, error, lands=lands)
    in_trade.execution.exit(in_trade.store.live["KO"], LEAVE, 100.0)
    in_trade.bar(QUIET)
    in_trade.bar(QUIET)
    in_trade.bar(QUIET)
    (trade,) = in_trade.closed
    assert in_trade.held() == 0
    assert trade.exit_reason == ExitReason.TIME_LIMIT
    assert OrderIntent.objects.filter(step="exit").count() == 1


def test_a_refused_entry_is_no_trade(world):
    Faulty(world, Rejected("insufficient buying power"), lands=False)
    assert not world.execution.enter(trade_plan())
    assert world.store.live == {}
    assert OrderIntent.objects.get().error == "insufficient buying power"


def test_after_a_crash_between_order_and_record_the_next_start_takes_over(in_trade):
    in_trade.execution.exit(in_trade.store.live["KO"], LEAVE, 100.0)
    OrderIntent.objects.filter(step="exit").update(status=IntentStatus.INTENDED, broker_order_id="")
    restarted = World(OrmStore("simulated"), now=in_trade.now)
    restarted.exchange = in_trade.exchange
    restarted.execution._broker = in_trade.exchange
    restarted.bar(QUIET)
    (trade,) = restarted.closed
    assert trade.exit_reason == ExitReason.TIME_LIMIT
    assert restarted.held() == 0
    assert OrderIntent.objects.filter(step="exit").count() == 1


def test_order_ids_name_book_signal_step_and_attempt_and_never_a_primary_key(in_trade):
    ids = [intent.client_order_id for intent in in_trade.store.live["KO"].intents]
    assert [each.split(".", 2)[2] for each in ids] == [
        "KO-20250512T140000Z-long-entry1",
        "KO-20250512T140000Z-long-stop1",
    ]
    other = World(OrmStore("paper:x"))
    assert other.execution._id_prefix != in_trade.execution._id_prefix


class Misreporting:
    """The exchange with a view of free shares that is not its own: too few at first, or always all."""

    def __init__(self, world: World, available: list[int]) -> None:
        self._exchange, self._available = world.exchange, available
        world.execution._broker = self

    def positions(self):
        shown = self._available.pop(0) if len(self._available) > 1 else self._available[0]
        return Listing({symbol: replace(held, available=shown) for symbol, held in self._exchange.positions().items()})

    def __getattr__(self, name):
        return getattr(self._exchange, name)


class Unanswering:
    """A broker that answers nothing."""

    def __getattr__(self, name):
        def ask(*_):
            raise Unavailable("no answer")

        return ask


def exits_sent() -> list[int]:
    return list(OrderIntent.objects.filter(step="exit").order_by("id").values_list("quantity", flat=True))


def test_an_exit_waits_until_the_cancelled_stop_has_set_the_shares_free(in_trade):
    Misreporting(in_trade, [0, 0, 10])
    began = in_trade.clock.now()
    in_trade.execution.exit(in_trade.store.live["KO"], LEAVE, 100.0)
    assert exits_sent() == [10]
    assert in_trade.clock.now() - began == 2 * RELEASE_PAUSE


def test_shares_that_stay_reserved_are_asked_for_in_every_tick_and_an_alarm(in_trade):
    Misreporting(in_trade, [0])
    in_trade.execution.exit(in_trade.store.live["KO"], LEAVE, 100.0)
    assert exits_sent() == []
    assert in_trade.execution.urgent
    with capture_logs() as logs:
        for _ in range(20):
            in_trade.clock.sleep_until(in_trade.clock.now() + timedelta(seconds=1))
            in_trade.execution.resume()
    assert [each["event"] for each in logs if each["log_level"] == "error"] == ["position_unprotected"]
    assert in_trade.execution.alarms.startswith("position_unprotected: KO since ")
    in_trade.execution._broker = in_trade.exchange
    with capture_logs() as logs:
        in_trade.execution.resume()
    assert [each["event"] for each in logs] == ["position_protected_again"]
    assert exits_sent() == [10]
    assert not in_trade.execution.urgent
    in_trade.bar(QUIET)
    assert in_trade.held() == 0


def test_an_exit_that_was_held_up_and_goes_on_does_not_end_an_alarm_that_was_never_raised(in_trade):
    in_trade.execution.isolate = Isolation("simulated", in_trade.clock).of
    in_trade.execution._broker, began = Unanswering(), in_trade.clock.now()
    in_trade.execution.exit(in_trade.store.live["KO"], LEAVE, 100.0)
    assert in_trade.execution.alarms == ""
    in_trade.clock.sleep_until(in_trade.clock.now() + timedelta(seconds=9))
    with capture_logs() as logs:
        in_trade.execution.resume()
    assert [each["event"] for each in logs if each["log_level"] == "error"] == ["exit_held_up"]
    assert in_trade.execution.alarms == f"exit_held_up: KO since {began:%H:%M:%S} UTC"
    in_trade.execution._broker = in_trade.exchange
    with capture_logs() as logs:
        in_trade.execution.resume()
    assert exits_sent() == [10]
    assert logs == []
    assert in_trade.execution.alarms == ""


def test_an_exit_that_works_is_not_sent_again_whatever_the_positions_say(in_trade):
    Misreporting(in_trade, [10])
    in_trade.execution.exit(in_trade.store.live["KO"], LEAVE, 100.0)
    in_trade.execution.owed.add("KO")
    in_trade.execution.resume()
    assert exits_sent() == [10]


def test_an_exit_sells_no_more_than_is_held(in_trade):
    (stop,) = in_trade.exchange.open_orders().values()
    in_trade.exchange.cancel(stop.id)
    by_hand = OrderRequest("hand", "KO", OrderSide.SELL, OrderKind.MARKET, 4, PositionIntent.SELL_TO_CLOSE)
    in_trade.exchange.submit(by_hand)
    in_trade.exchange.open_bar(batch(in_trade.now, QUIET))
    in_trade.execution.exit(in_trade.store.live["KO"], LEAVE, 100.0)
    assert exits_sent() == [6]
    in_trade.bar(QUIET)
    assert in_trade.held() == 0


def test_an_order_found_under_our_id_that_is_not_ours_is_left_alone_and_the_next_id_is_used(world):
    send, silent = world.exchange.submit, True

    def taken_long_ago(request):
        nonlocal silent
        if silent:
            silent = False
            world.exchange.cancel(send(replace(request, created_at=request.created_at - timedelta(minutes=1))).id)
            raise OutcomeUnknown("timed out")
        return send(request)

    world.execution.enter(trade_plan())
    world.exchange.open_bar(batch(world.now, QUIET))
    world.exchange.submit = taken_long_ago
    world.settle()
    first, second = OrderIntent.objects.filter(step="stop").order_by("attempt")[:2]
    assert (first.status, first.broker_order_id) == (IntentStatus.REJECTED, "")
    assert "not ours" in first.error
    assert (second.status, world.protected()) == (IntentStatus.WORKING, 10)


def test_a_working_order_of_the_trade_that_cannot_be_read_is_not_taken_for_absent(in_trade):
    (stop,) = in_trade.exchange.open_orders().values()
    in_trade.exchange.open_orders = lambda: Listing({}, frozenset({stop.client_order_id}))
    in_trade.execution.owed.add("KO")
    in_trade.execution.resume()
    assert not in_trade.execution.exit(in_trade.store.live["KO"], LEAVE, 100.0)
    assert OrderIntent.objects.count() == 2
    del in_trade.exchange.open_orders
    in_trade.bar(QUIET)
    in_trade.bar(QUIET)
    assert in_trade.held() == 0


def test_news_that_cannot_be_read_are_told_next_time(world):
    world.execution.enter(trade_plan())
    world.exchange.open_bar(batch(world.now, QUIET))
    honest = world.exchange.changed_orders

    def unreachable():
        raise Unavailable("connection refused")

    world.exchange.changed_orders = unreachable
    assert not world.execution.take_events()
    world.exchange.changed_orders = honest
    world.settle()
    assert world.protected() == 10


def refusing(world: World, kind: OrderKind):
    """The exchange refuses every order of a kind from now on; how many it was asked for."""
    send, asked = world.exchange.submit, []

    def submit(request):
        if request.kind is kind:
            asked.append(request.client_order_id)
            raise Rejected("account is restricted")
        return send(request)

    world.exchange.submit = submit
    return asked


def test_an_exit_that_is_refused_again_and_again_is_given_up_with_an_alarm_and_its_shares_protected(in_trade):
    asked = refusing(in_trade, OrderKind.MARKET)
    in_trade.execution.exit(in_trade.store.live["KO"], LEAVE, 100.0)
    with capture_logs() as logs:
        for _ in range(20):
            in_trade.clock.sleep_until(in_trade.clock.now() + timedelta(seconds=10))
            in_trade.settle()
    assert len(asked) == len(set(asked)) == MOST_ATTEMPTS
    assert "exit_given_up" in {each["event"] for each in logs if each["log_level"] == "error"}
    assert in_trade.protected() == in_trade.held() == 10


def test_an_exit_that_was_given_up_asks_for_no_look_every_second(in_trade):
    refusing(in_trade, OrderKind.MARKET)
    in_trade.execution.exit(in_trade.store.live["KO"], LEAVE, 100.0)
    for _ in range(MOST_ATTEMPTS + 2):
        in_trade.clock.sleep_until(in_trade.clock.now() + timedelta(seconds=1))
        in_trade.settle()
    assert in_trade.protected() == in_trade.held() == 10
    assert not in_trade.execution.urgent


def test_a_stop_that_is_refused_again_and_again_is_given_up_with_an_alarm(world):
    asked = refusing(world, OrderKind.STOP)
    world.execution.enter(trade_plan())
    with capture_logs() as logs:
        world.bar(QUIET)
        for _ in range(20):
            world.clock.sleep_until(world.clock.now() + timedelta(seconds=1))
            world.settle()
    assert len(asked) == len(set(asked)) == MOST_ATTEMPTS
    assert [each["event"] for each in logs if each["log_level"] == "error"].count("stop_given_up") == 1


def test_trades_looked_at_one_after_the_other_share_one_listing_of_orders(world):
    world.bar(QUIET, QUIET)
    for symbol in ("KO", "F"):
        world.execution.enter(trade_plan(symbol))
    world.bar(QUIET, QUIET)
    asked = []
    for read in ("open_orders", "order_by_client_id", "positions"):
        honest = getattr(world.exchange, read)
        setattr(world.exchange, read, lambda *ids, read=read, honest=honest: asked.append(read) or honest(*ids))
    world.execution.owed |= {"KO", "F"}
    world.execution.resume()
    assert asked == ["open_orders"]
    assert (world.execution.owed, world.protected("KO"), world.protected("F")) == (set(), 10, 10)


def test_who_sends_or_cancels_an_order_reads_anew(world):
    world.bar(QUIET, QUIET)
    for symbol in ("KO", "F"):
        world.execution.enter(trade_plan(symbol))
    world.bar(QUIET, QUIET)
    for order in list(world.exchange.open_orders().values()):
        world.exchange.cancel(order.id)
    world.execution.owed |= {"KO", "F"}
    world.execution.resume()
    world.settle()
    assert (world.protected("KO"), world.protected("F")) == (10, 10)
    world.execution.owed |= {"KO", "F"}
    world.execution.resume()
    assert OrderIntent.objects.filter(step="stop").count() == 4
