"""The simulated Alpaca on the wire: its trading and data API over HTTP, trade updates and bars over WebSocket.

The real SDK talks to it. What is traded at which prices and what the endpoints say is decided in `standin`; here are
the port, keys and rates, the faults on the way, and /control, by which its clock, its faults and its rules are set. It
is for tests and for trying things out and belongs on a loopback address: whoever reaches it, rules it.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import orjson
from aiohttp import web

from positions.broker.standin import data_api, trading_api, wire
from positions.broker.standin.calls import Answer, Body, Call, DataRefused
from positions.broker.standin.data_api import DataApi
from positions.broker.standin.faults import AT_THE_VENUE, IN_THE_REPLY, ON_THE_WAY, Armed, Fault, FaultPlan
from positions.broker.standin.rules import BAD_PARAMETER, Refused, Rules, changed
from positions.broker.standin.streams import Streams
from positions.broker.standin.tape import Tape
from positions.broker.standin.trading_api import TradingApi
from positions.broker.standin.venue import Venue
from positions.clock import FastClock, ReplayClock
from positions.market.feeds import ReplayFeed

TICK = 0.02  # wall seconds between looks at a running clock
BEFORE_OPEN = timedelta(minutes=10)  # the clock starts so long before the first session, and skips nights up to it
AFTER_CLOSE = timedelta(minutes=10)  # and from there
RATE_LIMITED = 42910000
HTML = "<html><head><title>{0}</title></head><body><center><h1>{0}</h1></center><hr>nginx</body></html>"
LANDS = frozenset({Fault.HANG_AFTER, Fault.RESET_AFTER, Fault.TIMEOUT_AFTER, Fault.EMPTY, Fault.NOT_JSON})


class AlpacaServer:
    """A market, an account and their clock behind one port.

    `feed` makes the market's bars, anew for each reset. With a `speed` the clock runs, that many times as fast as the
    wall's, and skips nights; without one it stands still until /control/clock moves it (lockstep).
    """

    def __init__(self, feed: Callable[[], ReplayFeed], rules: Rules, speed: float | None = None, seed: int = 0) -> None:
        self._feed, self._first_rules, self._speed, self._seed = feed, rules, speed, seed
        self._streams = Streams()
        self._clockwork: asyncio.Task[None] | None = None
        self._runner: web.AppRunner | None = None
        self.reset(rules)

    def reset(self, rules: Rules) -> None:
        """Market, account and clock as at the start, no faults."""
        tape = Tape(self._feed(), rules.corrected_bars)
        assert tape.today is not None
        start = tape.today.session.open - BEFORE_OPEN
        self.clock = ReplayClock(start) if self._speed is None else FastClock(start, self._speed)
        self.venue = Venue(tape, rules, start, self._seed)
        self.faults = FaultPlan()
        self.trading, self.data = TradingApi(self.venue, self.faults), DataApi(self.venue)
        self.requests: Counter[str] = Counter()
        self._in_minute: Counter[tuple[str, int]] = Counter()
        self._streams.attach(self.venue, self.faults)

    # -- running

    async def start(self, host: str, port: int) -> int:
        """Serve; returns the port, which is a free one for port 0."""
        self._runner = web.AppRunner(self._application(), handler_cancellation=True, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        if self._speed is not None:
            self._clockwork = asyncio.create_task(self._run_clock())
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        if self._clockwork is not None:
            self._clockwork.cancel()
        self._streams.drop_all()
        if self._runner is not None:
            await self._runner.cleanup()

    def advance(self) -> None:
        """Let the market come to what the clock says, and tell the streams."""
        self.venue.advance(self.clock.now())
        self._streams.send_news()

    async def _run_clock(self) -> None:
        while True:
            self.advance()
            self._skip_night()
            await asyncio.sleep(TICK)

    def _skip_night(self) -> None:
        venue, clock = self.venue, self.clock
        if venue.session is None or not isinstance(clock, FastClock):
            return
        known = [*venue.tape.past[-1:], *([venue.tape.today] if venue.tape.today else [])]
        ended = [bars.session.close for bars in known if bars.session.close <= venue.now]
        wake = venue.session.open - BEFORE_OPEN
        if max(ended, default=wake) + AFTER_CLOSE < venue.now < wake:
            clock.jump(wake)

    def _application(self) -> web.Application:
        app = web.Application()
        for method, path, trading in trading_api.ROUTES:
            app.router.add_route(method, path, partial(self._respond, "trading", trading))
        for method, path, data in data_api.ROUTES:
            app.router.add_route(method, path, partial(self._respond, "data", data))
        app.router.add_get("/stream", self._streams.serve_trade_updates)
        app.router.add_get("/v2/{feed:sip|iex|delayed_sip}", self._streams.serve_bars)
        app.router.add_get("/control", self.show)
        app.router.add_post("/control/clock", self.move_clock)
        app.router.add_post("/control/faults", self.arm_fault)
        app.router.add_delete("/control/faults", self.clear_faults)
        app.router.add_patch("/control/rules", self.change_rules)
        app.router.add_post("/control/reset", self.start_again)
        app.router.add_route("*", "/{unknown:.*}", partial(self._respond, "trading", TradingApi.unknown_endpoint))
        return app

    # -- answering

    async def _respond(
        self, api: str, endpoint: Callable[..., Body | Answer], request: web.Request
    ) -> web.StreamResponse:
        self.advance()
        route = f"{request.method} {request.path}"
        self.requests[route] += 1
        text = await request.read()
        fault = self.faults.take(ON_THE_WAY, route)
        if fault is not None and fault.fault is not Fault.LATE and fault.fault not in LANDS:
            return await _misbehave(fault.fault, request)
        body = _parsed(text)
        if body is None:
            return _json(Answer(400, {"code": BAD_PARAMETER, "message": "request body format is invalid"}))
        call = Call(route, request.match_info, request.query, body, self.faults.take(AT_THE_VENUE, route))
        handler = partial(endpoint, self.trading if api == "trading" else self.data)
        if fault is not None and fault.fault is Fault.LATE:
            self.venue.after(fault.seconds, _answer, handler, call)
            return await _misbehave(fault.fault, request)
        refused, headers = self._admit(api, request)
        answer = refused or _answer(handler, call)
        self.advance()
        if fault is not None:
            return await _misbehave(fault.fault, request)
        change = self.faults.take(IN_THE_REPLY, route)
        if change is not None:
            answer = Answer(answer.status, wire.CHANGES[change.fault](answer.body))
        return _json(answer, headers)

    def _admit(self, api: str, request: web.Request) -> tuple[Answer | None, dict[str, str]]:
        """Keys and rate: a refusal where one is due, and the headers of the reply."""
        rules, headers = self.venue.rules, request.headers
        if not rules.let_in(headers.get("APCA-API-KEY-ID", ""), headers.get("APCA-API-SECRET-KEY", "")):
            return Answer(401, {"message": "unauthorized."}), {}
        if not rules.rate_limit:
            return None, {}
        minute = int(self.venue.now.timestamp()) // 60
        self._in_minute[api, minute] += 1
        left = rules.rate_limit - self._in_minute[api, minute]
        told = {
            "X-RateLimit-Limit": str(rules.rate_limit),
            "X-RateLimit-Remaining": str(max(0, left)),
            "X-RateLimit-Reset": str((minute + 1) * 60),
        }
        if left >= 0:
            return None, told
        return Answer(429, _too_many(rules.rate_code_on_429)), told if rules.rate_headers_on_429 else {}

    # -- control

    async def show(self, request: web.Request) -> web.Response:
        self.advance()
        session = self.venue.session
        shown = {
            "now": wire.stamp(self.venue.now),
            "speed": self._speed,
            "lockstep": self._speed is None,
            "session": None if session is None else str(session.day),
            "requests": dict(self.requests),
            "faults": [asdict(armed) for armed in self.faults.armed],
            "rules": self._rules(),
        }
        return _json(Answer(200, shown))

    async def move_clock(self, request: web.Request) -> web.Response:
        """{"to": time} or {"seconds": number}; replies when everything that happened on the way has been sent."""
        body = await request.json()
        if not isinstance(self.clock, ReplayClock):
            return _refuse(409, "the clock runs by itself; start the server with --lockstep to move it")
        now = self.clock.now()
        to = datetime.fromisoformat(body["to"]) if "to" in body else now + timedelta(seconds=float(body["seconds"]))
        self.clock.sleep_until(to)
        self.advance()
        await self._streams.flushed()
        return _json(Answer(200, {"now": wire.stamp(self.venue.now)}))

    async def arm_fault(self, request: web.Request) -> web.Response:
        """{"fault": name, "route": "POST /v2/orders", "count": 1 or null, "seconds": number or null}"""
        self.advance()
        body = await request.json()
        try:
            armed = Armed(Fault(body["fault"]), body["route"], body.get("count", 1), body.get("seconds"))
        except (KeyError, ValueError) as error:
            return _refuse(422, f"no fault to arm: {error}")
        self.arm(armed)
        return _json(Answer(200, asdict(armed)))

    def arm(self, armed: Armed) -> None:
        if armed.fault is Fault.STALE:
            self.trading.remember(armed.seconds)
        self.faults.armed.append(armed)

    async def clear_faults(self, request: web.Request) -> web.Response:
        self.faults.armed.clear()
        return _json(Answer(204, None))

    async def change_rules(self, request: web.Request) -> web.Response:
        """Any of `Rules`, by name, as text, number or null."""
        self.advance()
        try:
            self.venue.rules = changed(self.venue.rules, await request.json())
        except ValueError as error:
            return _refuse(422, str(error))
        return _json(Answer(200, self._rules()))

    async def start_again(self, request: web.Request) -> web.Response:
        """As at the start; any of `Rules` may be given anew."""
        try:
            self.reset(changed(self._first_rules, await request.json() if request.can_read_body else {}))
        except ValueError as error:
            return _refuse(422, str(error))
        return _json(Answer(200, {"now": wire.stamp(self.venue.now)}))

    def _rules(self) -> dict[str, str]:
        return {field.name: str(getattr(self.venue.rules, field.name)) for field in fields(Rules)}


def _parsed(text: bytes) -> dict[str, Any] | None:
    """The object that a body is, {} for an empty one, None for anything else."""
    try:
        body = json.loads(text) if text else {}
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def _answer(handler: Callable[[Call], Body | Answer], call: Call) -> Answer:
    try:
        answer = handler(call)
    except Refused as refused:
        return Answer(refused.status, wire.refusal_json(refused))
    except DataRefused as refused:
        return Answer(refused.status, {"message": refused.message})
    return answer if isinstance(answer, Answer) else Answer(200, answer)


def _json(answer: Answer, headers: Mapping[str, str] | None = None) -> web.Response:
    if answer.status == 204:
        return web.Response(status=204, headers=headers)
    body = orjson.dumps(answer.body)
    return web.Response(status=answer.status, body=body, content_type="application/json", headers=headers)


def _refuse(status: int, message: str) -> web.Response:
    return _json(Answer(status, {"message": message}))


def _too_many(with_code: bool = True) -> Body:
    return {**({"code": RATE_LIMITED} if with_code else {}), "message": "too many requests."}


async def _misbehave(fault: Fault, request: web.Request) -> web.StreamResponse:
    """What the client gets instead of a reply."""
    match fault:
        case Fault.HANG | Fault.HANG_AFTER:
            await asyncio.Event().wait()  # until the client gives up, which cancels this
        case Fault.TIMEOUT_BEFORE | Fault.TIMEOUT_AFTER:
            return _html(504, "504 Gateway Time-out")
        case Fault.SERVER_ERROR:
            return _html(500, "500 Internal Server Error")
        case Fault.NOT_JSON:
            return _html(200, "Alpaca")
        case Fault.TOO_MANY:
            return _json(Answer(429, _too_many()))
        case Fault.UNAUTHORIZED:
            return _json(Answer(401, {"message": "unauthorized."}))
        case Fault.RESET_BEFORE | Fault.RESET_AFTER | Fault.LATE:
            if request.transport is not None:
                request.transport.abort()
    return web.Response()


def _html(status: int, title: str) -> web.Response:
    return web.Response(status=status, text=HTML.format(title), content_type="text/html")
