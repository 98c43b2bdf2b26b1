"""What the simulated Alpaca says looks like what the real one said, and like its specification."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from alpaca.data.historical import StockHistoricalDataClient
from alpaca.trading.enums import OrderClass
from alpaca.trading.requests import StopLossRequest, TakeProfitRequest

from tests.positions.stand_in import CLOSE, OPEN, StandIn, limit, market, stop

SYMBOLS = "symbols=KO,F,NOPE"
PATHS = {  # of the specification: what to ask for
    "/v2/account": "/v2/account",
    "/v2/account/configurations": "/v2/account/configurations",
    "/v2/account/activities": "/v2/account/activities",
    "/v2/account/activities/{activity_type}": "/v2/account/activities/FILL",
    "/v2/assets": "/v2/assets",
    "/v2/assets/{symbol_or_asset_id}": "/v2/assets/KO",
    "/v2/calendar": "/v2/calendar?start=2025-05-12&end=2025-05-30",
    "/v2/clock": "/v2/clock",
    "/v2/orders": "/v2/orders?status=all&nested=true",
    "/v2/orders/{order_id}": "/v2/orders/{order_id}",
    "/v2/orders:by_client_order_id": "/v2/orders:by_client_order_id?client_order_id=entry",
    "/v2/positions": "/v2/positions",
    "/v2/positions/{symbol_or_asset_id}": "/v2/positions/F",
    "/v2/stocks/bars": f"/v2/stocks/bars?{SYMBOLS}&timeframe=1Min&feed=iex&limit=3",
    "/v2/stocks/bars/latest": f"/v2/stocks/bars/latest?{SYMBOLS}",
    "/v2/stocks/trades/latest": f"/v2/stocks/trades/latest?{SYMBOLS}",
    "/v2/stocks/quotes/latest": f"/v2/stocks/quotes/latest?{SYMBOLS}",
    "/v2/stocks/snapshots": f"/v2/stocks/snapshots?{SYMBOLS}",
}

SINCE_2019 = "came after the recording of 2019 to 2021 and is in the specification of 2026"
NO_CURRENCY = "those recordings asked for prices in a currency, which we never do"
NO_DAY_TRADES = "was taken out of all replies on 6 July 2026"
OF_ORDERS = {
    "expires_at": SINCE_2019,
    "extended_hours": SINCE_2019,
    "hwm": SINCE_2019,
    "legs": SINCE_2019,
    "notional": SINCE_2019,
    "order_class": SINCE_2019,
    "position_intent": SINCE_2019,
    "replaced_at": SINCE_2019,
    "replaced_by": SINCE_2019,
    "replaces": SINCE_2019,
    "source": "is in every reply of 2026",
    "subtag": "is in every reply of 2026",
    "trail_percent": SINCE_2019,
    "trail_price": SINCE_2019,
}
OF_POSITIONS = {"asset_marginable": SINCE_2019, "qty_available": SINCE_2019}

ONLY_OURS: dict[str, dict[str, str]] = {  # by path, what we say beyond the recordings, and why
    "/v2/account": {
        "account_number": "was taken out of the recording",
        **dict.fromkeys(
            (
                "accrued_fees", "balance_asof", "crypto_status", "intraday_adjustments", "last_maintenance_margin",
                "non_marginable_buying_power", "options_approved_level", "options_buying_power",
                "options_trading_level", "pending_reg_taf_fees", "regt_buying_power",
            ),
            SINCE_2019,
        ),
    },
    "/v2/account/activities/{activity_type}": {
        "order_status": SINCE_2019,
        "activity_sub_type": SINCE_2019,
        "created_at": SINCE_2019,
        "currency": SINCE_2019,
        "description": "is what a fee is for",
        "status": SINCE_2019,
    },
    "/v2/assets/{symbol_or_asset_id}": dict.fromkeys(
        (
            "attributes", "borrow_status", "cusip", "fractionable", "maintenance_margin_requirement",
            "margin_requirement_long", "margin_requirement_short", "name",
        ),
        SINCE_2019,
    ),
    "/v2/calendar": dict.fromkeys(("session_close", "session_open", "settlement_date"), SINCE_2019),
    "/v2/orders": OF_ORDERS,
    "/v2/orders/{order_id}": OF_ORDERS,
    "/v2/positions": OF_POSITIONS,
    "/v2/positions/{symbol_or_asset_id}": OF_POSITIONS,
    "/v2/stocks/quotes/latest": {"z": "not in the oldest recording"},
    "/v2/stocks/snapshots": {"z": "not in the oldest recording", "n": "not in the oldest", "vw": "not in the oldest"},
}  # fmt: skip
ONLY_THEIRS: dict[str, dict[str, str]] = {  # by path, what the recordings say and we do not, and why
    "/v2/account": {"pattern_day_trader": NO_DAY_TRADES, "daytrade_count": NO_DAY_TRADES},
    "/v2/account/activities/{activity_type}": dict.fromkeys(
        ("qty", "symbol", "per_share_amount"), "of a dividend, and our market pays none"
    ),
    "/v2/stocks/bars/latest": {"currency": NO_CURRENCY},
}
BY_SYMBOL = {"bars", "trades", "quotes"}


@pytest.fixture(scope="module")
def busy(running_alpaca: StandIn) -> StandIn:
    """An account in the middle of a day: positions, a bracket, a stop, fills and fees."""
    alpaca = running_alpaca
    alpaca.reset(fees=True)
    client = alpaca.client()
    client.submit_order(market("SPY", 1))
    alpaca.go(to=OPEN.replace(day=13))
    client.submit_order(market("F", 10, client_order_id="entry"))
    alpaca.go(1)
    client.submit_order(stop("F", 10, 9))
    legs = {"take_profit": TakeProfitRequest(limit_price=102), "stop_loss": StopLossRequest(stop_price=99)}
    client.submit_order(market("KO", 10, order_class=OrderClass.BRACKET, **legs))
    client.submit_order(limit("SPY", 1, 490))
    alpaca.go(150)
    return alpaca


@pytest.fixture(scope="module")
def bodies(busy: StandIn) -> dict[str, Any]:
    """What each path of the specification answers, by path; lists and objects hold something."""
    order_id = busy.client().get_order_by_client_id("entry").id
    found = {path: get(busy, address.format(order_id=order_id)).json() for path, address in PATHS.items()}
    found["/v2/account/activities/{activity_type}"] += get(busy, "/v2/account/activities/FEE").json()
    assert all(found.values())
    return found


def get(alpaca: StandIn, address: str) -> requests.Response:
    headers = {"APCA-API-KEY-ID": "key", "APCA-API-SECRET-KEY": "secret"}
    return requests.get(f"{alpaca.origin}{address}", headers=headers, timeout=5)


def recordings(papers: Path, status: int = 200) -> Iterator[tuple[str, Any]]:
    """(path, body) of real GET replies of endpoints that we have."""
    for entry in json.loads((papers / "replies" / "index.json").read_text())["entries"]:
        is_real = entry["kind"].startswith("real_capture") and entry["method"] == "GET"
        if is_real and entry["status"] == status and entry["path"] in PATHS:
            yield entry["path"], json.loads((papers / "replies" / entry["file"]).read_text())


def kind(value: object) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "boolean", int: "number", float: "number"}
    return names.get(type(value), "null")


def members(path: str, body: Any) -> Iterator[tuple[str, str, str]]:
    """(where, key, JSON type) of every member of every object, without the symbols that data is filed under."""
    if isinstance(body, list):
        for each in body:
            yield from members(path, each)
    elif isinstance(body, dict):
        if path.rpartition(".")[2] in BY_SYMBOL or path == "/v2/stocks/snapshots":
            for each in body.values():
                yield from members(f"{path}.*", each)
            return
        for key, value in body.items():
            yield path, key, kind(value)
            yield from members(f"{path}.{key}", value)


def comparable(body: Any, recorded: Any) -> Any:
    """Of a list of fills and fees, the fills where the recording has fills, else the fees."""
    if not (isinstance(recorded, list) and "activity_type" in recorded[0]):
        return body
    return [each for each in body if (each["activity_type"] == "FILL") is (recorded[0]["activity_type"] == "FILL")]


def test_every_recorded_reply_has_the_keys_and_types_of_ours(alpaca_papers, bodies):
    seen: dict[str, set[str]] = {}
    for path, recorded in recordings(alpaca_papers):
        ours = set(members(path, comparable(bodies[path], recorded)))
        theirs = set(members(path, recorded))
        places = {where for where, _, _ in theirs}
        only_ours = {(w, k) for w, k, _ in ours if w in places} - {(w, k) for w, k, _ in theirs}
        only_theirs = {(w, k) for w, k, _ in theirs} - {(w, k) for w, k, _ in ours}
        assert {key for _, key in only_ours} <= set(ONLY_OURS.get(path, ())), path
        assert {key for _, key in only_theirs} <= set(ONLY_THEIRS.get(path, ())), path
        seen.setdefault(path, set()).update(key for _, key in only_ours | only_theirs)
        for where, key, type_ in theirs:
            known = {t for w, k, t in ours if (w, k) == (where, key)}
            assert "null" in {type_, *known} or not known or type_ in known, (where, key, type_, known)
    assert len(seen) >= 14
    for path in seen:
        assert {*ONLY_OURS.get(path, ()), *ONLY_THEIRS.get(path, ())} == seen[path], "a difference that is none"


def test_refusals_read_as_the_recorded_ones(alpaca_papers, busy):
    unknown = "001c0b29-5bc9-45c4-bd32-5ba323c997b3"
    asked = {
        "/v2/orders/{order_id}": f"/v2/orders/{unknown}",
        "/v2/positions/{symbol_or_asset_id}": "/v2/positions/NOPE",
        "/v2/account/activities/{activity_type}": "/v2/account/activities/INVALID",
    }
    found = [(path, status, body) for status in (404, 422) for path, body in recordings(alpaca_papers, status)]
    assert {path for path, _, _ in found} == set(asked)
    for path, status, body in found:
        reply = get(busy, asked[path])
        assert (reply.status_code, reply.json()) == (status, body)


#: Its schema wants one of two that both hold for every activity.
CONTRADICTORY = "/v2/account/activities/{activity_type}"


@pytest.mark.parametrize("path", sorted(PATHS.keys() - {CONTRADICTORY}))
def test_every_reply_validates_against_the_specification(alpaca_papers, bodies, path):
    validators = pytest.importorskip("openapi_schema_validator", reason="of the dev group")
    name = "market-data-api.json" if path.startswith("/v2/stocks") else "trading-api.json"
    specification = json.loads((alpaca_papers / "spec" / name).read_text())
    schema = specification["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    body = {**bodies[path]} if isinstance(bodies[path], dict) else bodies[path]
    if path == "/v2/stocks/snapshots":
        assert body.pop("NOPE") is None  # recorded so, though the specification has no null
    whole = {"allOf": [schema], "components": specification["components"]}
    validators.validate(body, whole, cls=validators.OAS30Validator)


def test_every_reply_parses_with_the_models_of_the_sdk(busy):
    client, data = busy.client(), StockHistoricalDataClient("key", "secret", url_override=busy.origin)
    assert client.get_account().status == "ACTIVE"
    assert client.get_account_configurations().no_shorting is False
    assert client.get_clock().is_open
    assert client.get_calendar()[0].date == CLOSE.replace(day=13).date()
    assert {asset.symbol for asset in client.get_all_assets()} == {"KO", "F", "SPY"}
    assert client.get_asset("KO").fractionable
    assert len(client.get_all_positions()) == 3
    assert {order.symbol for order in client.get_orders()} == {"KO", "F", "SPY"}
    assert data
