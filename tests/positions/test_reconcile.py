"""What the account shows against what is known: strangers are listed or taken over, our own are looked at again."""

from dataclasses import dataclass
from decimal import Decimal

import pytest

from positions.broker.exchange import SimulatedExchange
from positions.broker.port import Listing, OrderKind, OrderRequest, OrderSide, Position, PositionIntent, Unavailable
from positions.market.bars import BarHistory
from positions.market.calendar import session_of
from positions.market.indicators import IndicatorBank
from positions.models import ExternalPosition, Trade
from positions.reconcile import Reconciler
from positions.rules import ExitSettings
from positions.store import OrmStore
from positions.words import ExitReason, ExternalMode, Feed, TradeStatus
from tests.positions.world import MINUTE, UNIVERSE, World, trade_plan

pytestmark = pytest.mark.django_db
BOOK = "simulated"


def at(price: float) -> tuple[float, float, float, float]:
    return (price, price, price, price)


@dataclass
class Account:
    """A world with a reconciler, and a user who trades in it by hand."""

    world: World
    mode: ExternalMode = ExternalMode.SHOW
    orders: int = 0

    def __post_init__(self) -> None:
        bank = IndicatorBank(UNIVERSE)
        session = session_of(self.world.now.date())
        assert session is not None
        bank.open_session(session, MINUTE, BarHistory())
        self.reconciler = Reconciler(
            Feed.SIMULATED, self.world.exchange, self.world.store, self.world.execution, bank,
            lambda: self.mode, ExitSettings,
        )  # fmt: skip

    def by_hand(self, side: OrderSide, intent: PositionIntent, shares: int, price: float = 100.0) -> None:
        self.orders += 1
        self.world.exchange.submit(OrderRequest(f"hand-{self.orders}", "KO", side, OrderKind.MARKET, shares, intent))
        self.world.bar(at(price))

    def buys(self, shares: int) -> None:
        self.by_hand(OrderSide.BUY, PositionIntent.BUY_TO_OPEN, shares)

    def sells(self, shares: int) -> None:
        self.by_hand(OrderSide.SELL, PositionIntent.SELL_TO_CLOSE, shares)

    def looks(self) -> None:
        self.world.now += MINUTE
        self.world.clock.sleep_until(self.world.now)
        self.reconciler.reconcile(self.world.now)
        self.world.execution.resume()


@pytest.fixture
def account() -> Account:
    world = World(OrmStore(BOOK))
    world.bar(at(100.0), at(10.0))
    return Account(world)


def stops(exchange: SimulatedExchange) -> list[int]:
    return [order.quantity for order in exchange.open_orders().values() if order.kind is OrderKind.STOP]


def test_a_position_that_is_not_ours_is_listed_once_and_left_alone(account: Account) -> None:
    account.buys(7)
    account.looks()
    account.looks()
    row = ExternalPosition.objects.get()
    assert (row.book, row.symbol, row.quantity, row.price, row.gone_at) == (BOOK, "KO", 7, Decimal(100), None)
    assert Trade.objects.count() == 0
    assert account.world.exchange.open_orders() == {}


def test_one_that_its_owner_closes_is_gone_and_another_is_a_new_row(account: Account) -> None:
    account.buys(7)
    account.looks()
    account.sells(7)
    account.looks()
    assert ExternalPosition.objects.get().gone_at == account.world.now
    account.buys(3)
    account.looks()
    assert {row.quantity: row.gone_at is None for row in ExternalPosition.objects.all()} == {3: True, 7: False}


@pytest.mark.parametrize(("mode", "managed"), [(ExternalMode.PROTECT, False), (ExternalMode.MANAGE, True)])
def test_by_the_setting_it_gets_a_stop_and_perhaps_the_exit_rules(
    account: Account, mode: ExternalMode, managed: bool
) -> None:
    account.mode = mode
    account.buys(7)
    account.looks()
    trade = Trade.objects.get()
    assert (trade.status, trade.quantity, trade.managed) == (TradeStatus.OPEN, 7, managed)
    assert trade.stop_price == Decimal(98)
    assert stops(account.world.exchange) == [7]
    assert ExternalPosition.objects.get().trade == trade
    account.looks()
    assert (Trade.objects.count(), stops(account.world.exchange)) == (1, [7])


def test_a_user_may_have_one_adopted(account: Account) -> None:
    account.buys(7)
    account.looks()
    ExternalPosition.objects.update(adopt=True)
    account.looks()
    assert Trade.objects.get().managed
    assert stops(account.world.exchange) == [7]


def test_one_whose_owner_has_orders_of_his_own_is_left_to_him(account: Account) -> None:
    account.mode = ExternalMode.MANAGE
    account.buys(7)
    account.world.exchange.submit(
        OrderRequest(
            "his", "KO", OrderSide.SELL, OrderKind.STOP, 7, PositionIntent.SELL_TO_CLOSE, stop_price=Decimal(95)
        )
    )
    account.looks()
    assert Trade.objects.count() == 0
    assert list(account.world.exchange.open_orders()) == ["his"]


def test_what_was_added_to_our_trade_by_hand_is_listed_and_the_trade_goes_on(account: Account) -> None:
    account.world.execution.enter(trade_plan())
    account.world.bar(at(100.0))
    account.world.execution.take_events()
    account.buys(5)
    account.mode = ExternalMode.MANAGE
    account.looks()
    assert ExternalPosition.objects.get().quantity == 5
    assert Trade.objects.get().quantity == 10
    assert stops(account.world.exchange) == [10]


def test_a_trade_of_ours_that_was_closed_by_hand_is_closed_by_the_brokers_fills(account: Account) -> None:
    world = account.world
    world.execution.enter(trade_plan())
    world.bar(at(100.0))
    world.execution.take_events()
    (stop,) = world.exchange.open_orders().values()
    world.exchange.cancel(stop.id)
    world.exchange.changed_orders()  # the news of it is lost
    account.by_hand(OrderSide.SELL, PositionIntent.SELL_TO_CLOSE, 10, 100.5)
    world.exchange.changed_orders()
    account.looks()
    account.looks()
    trade = Trade.objects.get()
    assert (trade.status, trade.exit_reason, trade.exit_price) == (
        TradeStatus.CLOSED, ExitReason.MANUAL, Decimal("100.5"),
    )  # fmt: skip
    assert world.exchange.positions() == {}


def test_what_cannot_be_read_concludes_nothing(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    account.buys(7)
    account.looks()

    def away() -> Listing[Position]:
        raise Unavailable("away")

    monkeypatch.setattr(account.world.exchange, "positions", away)
    account.reconciler.reconcile(account.world.now)
    assert ExternalPosition.objects.get().gone_at is None
    monkeypatch.setattr(account.world.exchange, "positions", lambda: Listing({}, frozenset({"KO"})))
    account.reconciler.reconcile(account.world.now)
    assert ExternalPosition.objects.get().gone_at is None


def test_many_strangers_whose_prices_changed_take_no_more_queries_than_one(django_assert_num_queries):
    account = Account(World(OrmStore(BOOK)))

    def shown(count: int, price: float) -> Listing[Position]:
        return Listing({f"T{number}": Position(f"T{number}", 5, 5, price) for number in range(count)})

    for count in (1, 30):
        account.world.exchange.positions = lambda count=count: shown(count, 100.0)
        account.looks()
        account.world.exchange.positions = lambda count=count: shown(count, 101.0)
        with django_assert_num_queries(3):
            account.looks()
    assert set(ExternalPosition.objects.values_list("price", flat=True)) == {Decimal(101)}
    assert ExternalPosition.objects.count() == 30
