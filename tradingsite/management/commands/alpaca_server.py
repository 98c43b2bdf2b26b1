"""A simulated Alpaca that the real SDK can talk to, on a market of bars from a file or an invented one."""

import asyncio
import signal
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from positions.broker.standin.faults import Armed
from tradingsite.bars_options import add_date_options, add_file_options, file_feed
from tradingsite.kit.command import SiteCommand
from tradingsite.kit.json_file import write_json
from tradingsite.kit.options import bad_input, number_of_sessions, seed
from tradingsite.kit.terminal import console

if TYPE_CHECKING:
    from positions.broker.server import AlpacaServer
    from positions.market.feeds import ReplayFeed

HOST = "127.0.0.1"


def port(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text) > 65535:
        raise ArgumentTypeError(f"{text!r} is not a port from 0 to 65535")
    return int(text)


def speed(text: str) -> float:
    try:
        times = float(text)
    except ValueError:
        times = 0.0
    if not 0 < times <= 100_000:
        raise ArgumentTypeError(f"{text!r} is not a speed above 0 and up to 100000")
    return times


def rule(text: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not found:
        raise ArgumentTypeError(f"{text!r} is not NAME=VALUE, like release_delay=3")
    return name, value


def fault(text: str) -> Armed:
    try:
        return Armed.parse(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from error


class Command(SiteCommand):
    help = (
        "Serve a simulated Alpaca: trading and data API over HTTP, trade updates and bars over WebSocket, for the "
        "real alpaca-py to talk to. The market is invented, or replays your bars; the clock runs, or stands still "
        "until it is told to move (--lockstep). What can be set and what can go wrong: docs/alpaca_server.md."
    )
    example = "--speed 60 --rule release_delay=3 --fault '504_after@POST /v2/orders'"
    exit_status = {0: "ended by SIGTERM", 2: "bad input, or a port that is taken"}
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_file_options(parser, without_bars="an invented market")
        add_date_options(parser)
        parser.add_argument("--sessions", type=number_of_sessions, default=5, help="of the invented market (default 5)")
        parser.add_argument("--seed", type=seed, default=7, help="of the invented market and partial fills (default 7)")
        parser.add_argument("--port", type=port, default=9000, help="0 is any free one (default 9000)")
        pace = parser.add_mutually_exclusive_group()
        pace.add_argument("--speed", type=speed, default=1.0, help="of the clock, against the wall's (default 1)")
        pace.add_argument("--lockstep", action="store_true", help="the clock moves by POST /control/clock alone")
        parser.add_argument(
            "--rule", type=rule, action="append", default=[], metavar="NAME=VALUE", help="how this Alpaca behaves"
        )
        parser.add_argument(
            "--fault", type=fault, action="append", default=[], metavar="FAULT[:COUNT[:SECONDS]]@ROUTE",
            help="what goes wrong",
        )  # fmt: skip

    def handle(self, *args: Any, **options: Any) -> None:
        from positions.broker.server import AlpacaServer
        from positions.broker.standin.rules import Rules, changed

        try:
            rules = changed(Rules(), dict(options["rule"]))
        except ValueError as error:
            raise bad_input(str(error)) from error
        pace = None if options["lockstep"] else options["speed"]
        server = AlpacaServer(_feed(options), rules, pace, options["seed"])
        for armed in options["fault"]:
            server.arm(armed)
        asyncio.run(_serve(server, options["port"], options["json"]))


def _feed(options: dict[str, Any]) -> "Callable[[], ReplayFeed]":
    """What makes the market, each time it begins anew."""
    from positions.market.feeds.simulated import SimulatedMarket

    if options["bars"] is None:
        if options["first"] or options["last"]:
            raise bad_input("--from and --to choose among sessions of --bars; an invented market has --sessions.")
        return lambda: SimulatedMarket(options["sessions"], options["seed"])
    feed = file_feed(options)
    return lambda: feed


async def _serve(server: "AlpacaServer", wanted: int, told_in: Path | None) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    try:
        taken = await server.start(HOST, wanted)
    except OSError as error:
        raise bad_input(f"Port {wanted} cannot be served: {error.strerror}; give another --port.") from error
    http, ws = f"http://{HOST}:{taken}", f"ws://{HOST}:{taken}"
    where = {"origin": http, "trade_updates": f"{ws}/stream", "bars": f"{ws}/v2/iex", "control": f"{http}/control"}
    screen = console()
    screen.print(f"This Alpaca is simulated: {http}", style="bold", soft_wrap=True)
    for what in ("trade_updates", "bars", "control"):
        screen.print(f"{what.replace('_', ' ')}: {where[what]}", soft_wrap=True)
    if told_in:
        write_json(told_in, where)
    screen.print(f"Market time: {server.venue.now:%Y-%m-%d %H:%M:%S} UTC. Ctrl-C ends it.")
    try:
        await ended.wait()
    finally:
        await server.stop()
