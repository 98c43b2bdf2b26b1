"""Structured logs: every event, from structlog or from logging, is one JSON object a line on stderr, times in UTC."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from structlog.stdlib import ProcessorFormatter
from structlog.typing import EventDict, Processor, WrappedLogger

from tradingsite.environment import BadEnvironment

#: Hear of every event of structlog, whatever its level; they must neither wait nor raise.
listeners: list[Callable[[Mapping[str, Any]], None]] = []

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")

_SHARED: list[Processor] = [
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.PositionalArgumentsFormatter(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def configure(level: str) -> dict[str, Any]:
    """Send structlog's events through logging, and return logging's settings (the LOGGING of Django).

    Raises BadEnvironment for a level that is none.
    """
    if level not in LEVELS:
        raise BadEnvironment(f"LOG_LEVEL={level} is not a level; use {', '.join(LEVELS)}")
    structlog.configure(
        processors=[_tell_listeners, structlog.stdlib.filter_by_level, *_SHARED, ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    ours_alone: dict[str, Any] = {"level": level, "handlers": [], "propagate": True}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": "tradingsite.logs.formatter"}},
        "filters": {"no_lost_connections": {"()": "tradingsite.logs.no_lost_connections"}},
        "handlers": {
            "stderr": {"class": "logging.StreamHandler", "formatter": "json"},
            "nowhere": {"class": "logging.NullHandler"},
        },
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            # Both have handlers of Django's own, which write plain text.
            "django": ours_alone,
            "django.server": ours_alone,
            # Every failed attempt would be a line; the one that gives up is raised and told by the console.
            "psycopg.pool": {"level": "ERROR"},
            # It would tell of each wrong password; ours, sign_in_refused, tells where it becomes too many.
            "axes": {"level": "ERROR"},
            # The addresses of notification services are secrets: these would write them, in parts or as a whole.
            "apprise": {"level": "WARNING", "handlers": ["nowhere"], "propagate": False},
            "urllib3": {"level": "INFO" if level == "DEBUG" else level},
            # Each lost connection would be a traceback; ours, stream_trouble, tells of it once.
            "alpaca.trading.stream": {"filters": ["no_lost_connections"]},
            "alpaca.data.live.websocket": {"filters": ["no_lost_connections"]},
            "requests_oauthlib": {"level": "ERROR"},
            "oauthlib": {"level": "ERROR"},
        },
    }


def _tell_listeners(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    for listener in listeners:
        listener(event)
    return event


def no_lost_connections() -> Callable[[logging.LogRecord], bool]:
    """Lets through what is no error of the network: a mistake of ours in what the SDK calls has no other log."""

    def is_told(record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, OSError)

    return is_told


def formatter() -> logging.Formatter:
    return ProcessorFormatter(
        foreign_pre_chain=[*_SHARED, structlog.stdlib.ExtraAdder()],
        processors=[
            ProcessorFormatter.remove_processors_meta,
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(default=str),
        ],
    )
