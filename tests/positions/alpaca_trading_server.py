"""A small account at Alpaca on loopback, so that the real SDK talks to it over sockets: orders, positions, account,
configuration, clock, activities and the stream of trade updates.

On its own it is honest. What should go wrong is told to it: `faults` are used up one a request, `reply` replaces the
answer of a path. `requests` are what it heard, method, path, query and body.
"""

import json
import socket
import struct
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

KEY, SECRET = "key", "secret"
WORKING = {"new", "accepted", "pending_new", "held", "partially_filled", "pending_cancel", "pending_replace"}


@dataclass(frozen=True)
class Fault:
    """How a request goes wrong: after it was acted on (`lands`) or instead; then a wait, and an answer, a part of one
    (`cut`) or a reset connection (no status)."""

    status: int | None = None
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    after: float = 0.0
    lands: bool = False
    cut: bool = False


@dataclass(frozen=True)
class Heard:
    method: str
    path: str
    query: dict[str, str]
    body: dict[str, Any]


class AlpacaTradingServer:
    """Use as a context manager."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.now = now
        self.orders: dict[str, dict[str, Any]] = {}
        self.positions: dict[str, dict[str, Any]] = {}
        self.activities: list[dict[str, Any]] = []
        self.configuration: dict[str, Any] = {"no_shorting": False, "suspend_trade": False}
        self.account: dict[str, Any] = {
            "account_number": "PA123",
            "status": "ACTIVE",
            "equity": "100000",
            "buying_power": "200000",
            "trading_blocked": False,
        }
        self.first_status = "new"
        self.checks_intent = True
        self.clock_ahead = timedelta(0)
        self.faults: deque[Fault] = deque()
        self.faulty: Callable[[Heard], bool] = lambda heard: True
        self.replies: dict[str, Any] = {}
        self.headers: dict[str, str] = {}
        self.requests: list[Heard] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"account": self}))
        self._server.daemon_threads = True
        self.origin = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    # What a test does to it, and asks of it

    def heard(self, method: str) -> list[Heard]:
        return [each for each in self.requests if each.method == method]

    def hold(self, symbol: str, quantity: int, price: str = "100.5", **more: Any) -> None:
        self.positions[symbol] = {
            "symbol": symbol,
            "qty": str(quantity),
            "qty_available": str(quantity),
            "side": "short" if quantity < 0 else "long",
            "current_price": price,
            "exchange": "NYSE",
            "asset_class": "us_equity",
            **more,
        }

    def change(self, order_id: str, **fields: Any) -> None:
        self.orders[order_id] |= fields

    def add_order(self, **fields: Any) -> dict[str, Any]:
        moment = self.now().isoformat().replace("+00:00", "Z")
        order = {
            "id": str(uuid.uuid4()),
            "client_order_id": str(uuid.uuid4()),
            "symbol": "KO",
            "side": "sell",
            "type": "stop",
            "order_type": "stop",
            "order_class": "",
            "qty": "10",
            "filled_qty": "0",
            "filled_avg_price": None,
            "filled_at": None,
            "stop_price": None,
            "limit_price": None,
            "status": self.first_status,
            "legs": None,
            "replaced_by": None,
            "replaces": None,
            "created_at": moment,
            "submitted_at": moment,
            **fields,
        }
        self.orders[order["id"]] = order
        return order

    # Its answers: (status, JSON)

    def answer(self, heard: Heard) -> tuple[int, Any]:
        if heard.path in self.replies:
            return 200, self.replies[heard.path]
        reads: dict[str, Callable[[], Any]] = {
            "/v2/account": lambda: self.account,
            "/v2/account/configurations": lambda: self.configuration,
            "/v2/account/activities": lambda: self._activities(heard.query),
            "/v2/clock": lambda: {"timestamp": (self.now() + self.clock_ahead).isoformat(), "is_open": True},
            "/v2/positions": lambda: list(self.positions.values()),
            "/v2/orders": lambda: self._listing(heard.query),
        }
        if heard.method == "GET" and heard.path in reads:
            return 200, reads[heard.path]()
        if heard.method == "POST" and heard.path == "/v2/orders":
            return self._submit(heard.body)
        return self._of_one_order(heard)

    def _of_one_order(self, heard: Heard) -> tuple[int, Any]:
        folder, _, wanted = heard.path.rpartition("/")
        if wanted == "orders:by_client_order_id":
            client_id = heard.query["client_order_id"]
            wanted = next((id_ for id_, order in self.orders.items() if order["client_order_id"] == client_id), "")
        elif folder != "/v2/orders":
            return _refusal(404, 40410000, "endpoint not found.")
        if wanted not in self.orders:
            return _refusal(404, 40410000, f"order not found for {wanted}")
        if heard.method == "GET":
            return 200, self.orders[wanted]
        return self._cancel(wanted) if heard.method == "DELETE" else self._replace(wanted, heard.body)

    def _submit(self, body: dict[str, Any]) -> tuple[int, Any]:
        if any(order["client_order_id"] == body["client_order_id"] for order in self.orders.values()):
            return _refusal(422, 40010001, "client_order_id must be unique")
        held = self.positions.get(body["symbol"], {}).get("qty", "0")
        if self.checks_intent and body["position_intent"].endswith("close") and held == "0":
            return _refusal(422, 42210000, "position intent mismatch, inferred: sell_to_open, specified: sell_to_close")
        written = {name: str(body[name]) for name in ("qty", "stop_price", "limit_price") if name in body}
        return 200, self.add_order(**{**body, "order_type": body["type"], **written})

    def _replace(self, order_id: str, body: dict[str, Any]) -> tuple[int, Any]:
        old = self.orders[order_id]
        if any(order["client_order_id"] == body["client_order_id"] for order in self.orders.values()):
            return _refusal(422, 40010001, "client_order_id must be unique")
        if old["status"] == "replaced":
            return _refusal(422, 42210000, "order already replaced")
        if old["status"] not in ("new", "partially_filled"):
            return _refusal(422, 42210000, f"cannot replace order in {old['status']} status")
        if old["stop_price"] == str(body["stop_price"]):
            return _refusal(422, 42210000, "order parameters are not changed")
        kept = {name: old[name] for name in ("symbol", "side", "type", "order_type", "qty")}
        given = {"client_order_id": body["client_order_id"], "stop_price": str(body["stop_price"])}
        new = self.add_order(**kept, **given, replaces=order_id)
        self.change(order_id, status="replaced", replaced_by=new["id"])
        return 200, new

    def _cancel(self, order_id: str) -> tuple[int, Any]:
        status = self.orders[order_id]["status"]
        if status not in WORKING:
            return _refusal(422, 42210000, f'order is already in "{status}" state')
        self.change(order_id, status="canceled")
        return 204, None

    def _listing(self, query: dict[str, str]) -> list[dict[str, Any]]:
        after = datetime.fromisoformat(query["after"]) if "after" in query else None
        symbols = query["symbols"].split(",") if "symbols" in query else None
        found = [
            order
            for order in sorted(self.orders.values(), key=lambda order: str(order["submitted_at"]))
            if (query.get("status", "open") == "all" or order["status"] in WORKING)
            and (after is None or datetime.fromisoformat(order["submitted_at"]) > after)
            and (symbols is None or order["symbol"] in symbols)
        ]
        return found[: int(query.get("limit", 50))]

    def _activities(self, query: dict[str, str]) -> list[dict[str, Any]]:
        after = query.get("page_token", "")
        kinds = query["activity_types"].split(",")
        found = [each for each in self.activities if each["id"] > after and each["activity_type"] in kinds]
        return found[: int(query.get("page_size", 100))]


def _refusal(status: int, code: int, message: str) -> tuple[int, Any]:
    return status, {"code": code, "message": message}


class _Handler(BaseHTTPRequestHandler):
    account: AlpacaTradingServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        size = int(self.headers.get("Content-Length", 0))
        body = json.loads(self.rfile.read(size)) if size else {}
        heard = Heard(self.command, address.path, query, body)
        self.account.requests.append(heard)
        fault = self.account.faults.popleft() if self.account.faults and self.account.faulty(heard) else None
        if fault is not None:
            self._fail(fault, heard)
        elif (self.headers["APCA-API-KEY-ID"], self.headers["APCA-API-SECRET-KEY"]) != (KEY, SECRET):
            self._reply(401, '{"message": "unauthorized."}', self.account.headers)
        else:
            status, answer = self.account.answer(heard)
            self._reply(status, "" if answer is None else json.dumps(answer), self.account.headers)

    do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815  # the names that http.server calls

    def _fail(self, fault: Fault, heard: Heard) -> None:
        if fault.lands:
            self.account.answer(heard)
        time.sleep(fault.after)
        if fault.status is None:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
            return
        self._reply(fault.status, fault.body, fault.headers, cut=fault.cut)

    def _reply(self, status: int, body: str, headers: dict[str, str], cut: bool = False) -> None:
        content = body.encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) + 10 * cut))
        with suppress(BrokenPipeError, ConnectionResetError):  # who waited for it has hung up
            self.end_headers()
            self.wfile.write(content)
        self.close_connection = cut

    def log_message(self, format: str, *args: Any) -> None:
        pass
