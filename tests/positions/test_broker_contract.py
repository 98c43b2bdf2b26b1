"""One contract for all brokers: what a replay trades with does what Alpaca does, as far as the port says.

Each test runs against the exchange in process, and against the adapter and the real SDK over HTTP to the simulated
Alpaca. Where the two may differ (an id that was used, an order cancelled twice), the contract is what both keep.
"""

from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

import pytest

from positions.broker.alpaca import AlpacaBroker, TradingAccess
from positions.broker.exchange import SimulatedExchange
from positions.broker.port import (
    Broker,
    Order,
    OrderKind,
    OrderRequest,
    OrderSide,
    OrderStatus,
    PositionIntent,
    Rejected,
)
from tests.positions.desk_over_http import StandInClock
from tests.positions.stand_in import MINUTE, OPEN, Prices, StandIn
from tests.positions.world import UNIVERSE, batch

FLAT, UP, DOWN = (100.0, 100.0, 100.0, 100.0), (102.0, 102.0, 102.0, 102.0), (99.9, 99.9, 98.0, 98.5)


class InProcess:
    """The exchange of a replay."""

    def __init__(self) -> None:
        self.broker: Broker = SimulatedExchange(UNIVERSE)
        self.now = OPEN

    def draw(self, *bars: Prices) -> None:
        """A flat minute passes; these bars come next, and flat ones behind them."""
        self._bars = [FLAT, *bars]
        self.minute()

    def minute(self) -> None:
        bars = batch(self.now, self._bars.pop(0) if self._bars else FLAT)
        assert isinstance(self.broker, SimulatedExchange)
        self.broker.open_bar(bars)
        self.broker.trade_bar(bars)
        self.now += MINUTE

    def moment(self) -> None:
        """What takes a broker a moment is done."""


class OverHttp:
    def __init__(self, alpaca: StandIn) -> None:
        self._alpaca = alpaca

    def draw(self, *bars: Prices) -> None:
        self._alpaca.reset(ko=[FLAT, *bars])
        self._clock = StandInClock(self._alpaca, OPEN)
        access = TradingAccess("key", "secret", origin=self._alpaca.origin)
        self.broker: Broker = AlpacaBroker(access, self._clock)
        self.minute()

    @property
    def now(self) -> datetime:
        return self._clock.now()

    def minute(self) -> None:
        ended = (self.now - OPEN) // MINUTE
        self._clock.sleep_until(OPEN + (ended + 1) * MINUTE)

    def moment(self) -> None:
        self._clock.sleep_until(self.now + timedelta(seconds=4))


Account = InProcess | OverHttp


@pytest.fixture(params=["in process", "over http"])
def account(request) -> Account:
    account: Account = InProcess() if request.param == "in process" else OverHttp(request.getfixturevalue("alpaca"))
    account.draw()
    return account


def order(name: str, side: OrderSide = OrderSide.BUY, quantity: int = 10, stop: str | None = None) -> OrderRequest:
    intent = PositionIntent.BUY_TO_OPEN if side is OrderSide.BUY else PositionIntent.SELL_TO_CLOSE
    kind, price = (OrderKind.MARKET, None) if stop is None else (OrderKind.STOP, Decimal(stop))
    return OrderRequest(name, "KO", side, kind, quantity, intent, price)


def sell(name: str, quantity: int = 10) -> OrderRequest:
    return order(name, OrderSide.SELL, quantity)


def stop(name: str, price: str = "99", quantity: int = 10) -> OrderRequest:
    return order(name, OrderSide.SELL, quantity, price)


def submit(account: Account, request: OrderRequest) -> Order:
    made = account.broker.submit(replace(request, created_at=account.now))
    account.moment()
    return made


def hold_ten(account: Account) -> None:
    submit(account, order("entry"))
    account.minute()


def found(account: Account, name: str) -> Order:
    order = account.broker.order_by_client_id(name)
    assert order is not None
    return order


def held(account: Account) -> tuple[int, int]:
    position = account.broker.positions().get("KO")
    return (position.quantity, position.available) if position else (0, 0)


def test_an_order_says_whose_it_is_and_what_it_asks_for(account):
    request = replace(order("entry"), created_at=account.now)
    made = account.broker.submit(request)
    assert made.difference_from(request) == ""
    assert (made.client_order_id, made.status, made.filled_quantity) == ("entry", OrderStatus.WORKING, 0)
    account.minute()
    assert found(account, "entry").id == made.id


def test_a_market_order_fills_within_a_minute_and_becomes_a_position(account):
    hold_ten(account)
    filled = found(account, "entry")
    assert (filled.status, filled.filled_quantity, filled.filled_price) == (OrderStatus.FILLED, 10, 100)
    assert filled.filled_at is not None
    assert (held(account), account.broker.positions()["KO"].price) == ((10, 10), 100)


def test_an_order_that_nobody_sent_is_none_and_an_account_without_business_is_empty(account):
    assert account.broker.order_by_client_id("nobody's") is None
    assert account.broker.open_orders() == account.broker.positions() == {}
    assert account.broker.changed_orders() == account.broker.activities(OPEN) == []
    assert account.broker.account().equity == 100_000


def test_an_id_is_one_order_however_often_it_is_sent(account):
    request = replace(order("entry"), created_at=account.now)
    account.broker.submit(request)
    account.minute()
    with suppress(Rejected):
        assert account.broker.submit(request).id == found(account, "entry").id
    with pytest.raises(Rejected):
        account.broker.submit(replace(request, quantity=11))
    account.minute()
    assert held(account) == (10, 10)


def test_a_resting_stop_holds_its_shares_until_it_is_cancelled(account):
    hold_ten(account)
    resting = submit(account, stop("stop"))
    assert (held(account), list(account.broker.open_orders())) == ((10, 0), ["stop"])
    with pytest.raises(Rejected, match="insufficient qty"):
        account.broker.submit(replace(sell("exit"), created_at=account.now))
    account.broker.cancel(resting.id)
    account.moment()
    assert (found(account, "stop").status, held(account)) == (OrderStatus.CANCELLED, (10, 10))
    submit(account, sell("exit 2"))
    account.minute()
    assert (held(account), account.broker.open_orders()) == ((0, 0), {})


def test_a_stop_fills_where_the_price_touches_it(account):
    account.draw(FLAT, DOWN)
    hold_ten(account)
    submit(account, stop("stop"))
    account.minute()
    filled = found(account, "stop")
    assert (filled.status, filled.filled_price, held(account)) == (OrderStatus.FILLED, 99, (0, 0))


def test_a_replaced_stop_is_a_new_order_and_the_end_of_the_old_one(account):
    hold_ten(account)
    old = submit(account, stop("stop"))
    new = account.broker.replace_stop(old.id, Decimal("99.50"), "moved")
    account.moment()
    assert (new.client_order_id, new.stop_price, new.replaces) == ("moved", Decimal("99.50"), old.id)
    ended = found(account, "stop")
    assert (ended.status, ended.replaced_by) == (OrderStatus.REPLACED, new.id)
    assert (list(account.broker.open_orders()), held(account)) == (["moved"], (10, 0))


def test_a_stop_that_has_the_price_already_stands(account):
    hold_ten(account)
    old = submit(account, stop("stop"))
    same = account.broker.replace_stop(old.id, Decimal(99), "moved")
    assert (same.id, same.client_order_id, same.status) == (old.id, "stop", OrderStatus.WORKING)


def test_what_is_over_can_be_neither_replaced_nor_brought_back(account):
    hold_ten(account)
    resting = submit(account, stop("stop"))
    account.broker.cancel(resting.id)
    account.moment()
    with suppress(Rejected):
        account.broker.cancel(resting.id)
    with pytest.raises(Rejected):
        account.broker.replace_stop(resting.id, Decimal("99.50"), "moved")
    with pytest.raises(Rejected):
        account.broker.cancel(found(account, "entry").id)
    assert (account.broker.open_orders(), found(account, "stop").status) == ({}, OrderStatus.CANCELLED)


@pytest.mark.parametrize(
    "request_",
    [
        order("more", OrderSide.SELL, 11),
        replace(sell("flip"), intent=PositionIntent.SELL_TO_OPEN),
        replace(order("cover"), intent=PositionIntent.BUY_TO_CLOSE),
        replace(sell("none"), quantity=0),
        stop("off the tick", "99.001"),
        stop("above the market", "100.50"),
        replace(order("unknown"), symbol="XXXX"),
    ],
    ids=lambda request: request.client_order_id,
)
def test_what_alpaca_refuses_is_refused_and_changes_nothing(account, request_):
    hold_ten(account)
    with pytest.raises(Rejected):
        account.broker.submit(replace(request_, created_at=account.now))
    account.minute()
    assert (held(account), account.broker.open_orders()) == ((10, 10), {})


def test_an_exit_that_comes_too_late_opens_nothing(account):
    hold_ten(account)
    submit(account, sell("exit"))
    account.minute()
    with pytest.raises(Rejected):
        account.broker.submit(replace(sell("exit 2"), created_at=account.now))
    account.minute()
    assert held(account) == (0, 0)


def test_every_change_is_handed_over_once_and_the_end_last(account):
    heard: list[tuple[str, OrderStatus]] = []

    def listen() -> None:
        heard.extend((order.client_order_id, order.status) for order in account.broker.changed_orders())

    for act in (
        lambda: hold_ten(account),
        lambda: submit(account, stop("stop")),
        lambda: account.broker.replace_stop(found(account, "stop").id, Decimal("99.50"), "moved"),
        account.moment,
        lambda: account.broker.cancel(found(account, "moved").id),
        account.moment,
    ):
        act()
        listen()
    ends = dict(heard)
    assert ends == {
        "entry": OrderStatus.FILLED,
        "stop": OrderStatus.REPLACED,
        "moved": OrderStatus.CANCELLED,
    }
    finals = [each for each in heard if each[1].is_final]
    assert sorted(finals) == sorted(set(finals))
    assert account.broker.changed_orders() == []


def test_fills_are_told_with_their_orders_oldest_first(account):
    began = account.now - MINUTE
    hold_ten(account)
    submit(account, sell("exit", 4))
    account.minute()
    told = account.broker.activities(began)
    assert [(each.side, each.quantity, each.price) for each in told] == [
        (OrderSide.BUY, 10, 100),
        (OrderSide.SELL, 4, 100),
    ]
    assert [each.order_id for each in told] == [found(account, name).id for name in ("entry", "exit")]
    assert account.broker.activities(account.now) == []


def test_a_short_position_is_negative_and_is_covered(account):
    submit(account, replace(sell("entry"), intent=PositionIntent.SELL_TO_OPEN))
    account.minute()
    assert held(account) == (-10, 10)
    submit(account, replace(order("stop", stop="101"), intent=PositionIntent.BUY_TO_CLOSE))
    assert held(account) == (-10, 0)
    account.broker.cancel(found(account, "stop").id)
    account.moment()
    submit(account, replace(order("exit"), intent=PositionIntent.BUY_TO_CLOSE))
    account.minute()
    assert held(account) == (0, 0)


def test_equity_follows_the_price_and_what_was_paid(account):
    account.draw(FLAT, UP, UP)
    hold_ten(account)
    account.minute()
    assert account.broker.account().equity == 100_000 + 10 * 2
