"""What the long run is judged by sees what went wrong: a careless hand at the broker, and records that do not fit."""

from collections.abc import Callable
from decimal import Decimal

import pytest
from alpaca.trading.enums import OrderSide
from alpaca.trading.requests import ReplaceOrderRequest

from positions.models import OrderIntent, PositionExit, StopMove, Trade
from tests.positions.broker_history import read, trades_of, untraceable
from tests.positions.desk_over_http import DeskOverHttp
from tests.positions.stand_in import StandIn, market

pytestmark = pytest.mark.django_db

#: Seconds between an entry and the look at its fill, as `hold` drives it.
DRIVEN = 3


@pytest.fixture
def desk(alpaca: StandIn) -> DeskOverHttp:
    desk = DeskOverHttp(alpaca)
    desk.hold()
    return desk


def wrong(desk: DeskOverHttp) -> list[str]:
    history = read(desk.alpaca.client())
    (trade,) = trades_of("simulated")
    return [*history.of(trade).wrong(), *untraceable(history, "simulated")]


def gaps(desk: DeskOverHttp) -> list[float]:
    (trade,) = trades_of("simulated")
    return [gap.seconds for gap in read(desk.alpaca.client()).of(trade).gaps()]


def left(desk: DeskOverHttp) -> None:
    desk.leave()
    desk.run(20)


def test_a_trade_that_went_well_has_nothing_wrong_and_no_long_time_without_a_stop(desk: DeskOverHttp) -> None:
    assert (wrong(desk), max(gaps(desk)) <= DRIVEN) == ([], True)
    left(desk)
    assert (wrong(desk), max(gaps(desk)) <= DRIVEN) == ([], True)
    assert Trade.objects.get().status == "closed"


def sold_again(desk: DeskOverHttp) -> None:
    left(desk)
    trade = Trade.objects.get()
    OrderIntent.objects.create(
        book="simulated", trade=trade, client_order_id="again", step="exit", quantity=10, created_at=trade.exited_at
    )
    desk.alpaca.client().submit_order(market("KO", 10, OrderSide.SELL, client_order_id="again"))
    desk.alpaca.go(2)


def loosened(desk: DeskOverHttp) -> None:
    (stop,) = desk.working
    desk.alpaca.client().replace_order_by_id(
        stop.id, ReplaceOrderRequest(stop_price=98, client_order_id=f"{stop.client_order_id}.loose")
    )
    trade = Trade.objects.get()
    OrderIntent.objects.create(
        book="simulated",
        trade=trade,
        client_order_id=f"{stop.client_order_id}.loose",
        step="move",
        quantity=10,
        created_at=trade.entered_at,
    )


def to_be_loosened(desk: DeskOverHttp) -> None:
    trade = Trade.objects.get()
    StopMove.objects.create(
        book="simulated",
        trade=trade,
        old_stop=Decimal(99),
        new_stop=Decimal(98),
        evidence={},
        decided_at=trade.entered_at,
    )


def without_its_exit(desk: DeskOverHttp) -> None:
    left(desk)
    PositionExit.objects.all().delete()


def without_its_intent(desk: DeskOverHttp) -> None:
    OrderIntent.objects.filter(step="stop").delete()


def with_another_fill(desk: DeskOverHttp) -> None:
    OrderIntent.objects.filter(step="entry").update(filled_quantity=9)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (sold_again, "-10 shares were held"),
        (loosened, "the stop went from 99.0 to 98.0"),
        (to_be_loosened, "the stop was to go from 99.0"),
        (without_its_exit, "left by time_limit, with the exits []"),
        (without_its_intent, "is in no journal"),
        (with_another_fill, "filled 10, 9 are recorded"),
    ],
)
def test_what_went_wrong_is_named(desk: DeskOverHttp, harm: Callable[[DeskOverHttp], None], said: str) -> None:
    harm(desk)
    assert any(said in each for each in wrong(desk)), wrong(desk)


def test_shares_without_a_stop_are_counted_to_the_second(desk: DeskOverHttp) -> None:
    (stop,) = desk.working
    desk.alpaca.client().cancel_order_by_id(stop.id)
    desk.alpaca.go(30)
    assert 29 <= max(gaps(desk)) <= 31
