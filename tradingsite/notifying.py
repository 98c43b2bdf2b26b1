"""Tells people what happened, once, beside the trading and never in its way.

What is news is decided in the table `notifications`: a state that differs from the one last told is stored under the
subject's next number, which one process can take. Whoever claims it sends it, and nobody does again: where a process
dies between claim and answer, or a service does not take it, the message is lost and the table says so.
"""

import hashlib
import logging
import re
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import orjson
import structlog
from django.conf import settings
from django.core.management.base import CommandError
from django.db import DatabaseError, InterfaceError, connection

from ml.progress import Progress, quiet
from positions.clock import Clock
from positions.market.calendar import NEW_YORK
from tradingsite import logs, news
from tradingsite.kit.options import INTERRUPTED
from tradingsite.models import NewsKind, Notification
from tradingsite.news import News

if TYPE_CHECKING:
    from apprise import Apprise

log = structlog.get_logger(__name__)

LOOK_S = 5.0
#: What is not urgent waits for what comes with it: until nothing has come for QUIET, at most LONGEST_WAIT.
QUIET, LONGEST_WAIT = timedelta(seconds=15), timedelta(seconds=75)
URGENT = {NewsKind.FAILURE, NewsKind.HALT, NewsKind.DRIFT}
#: News older than that when it is first seen is none: a long weekend at the start, then a day.
LOOK_BACK, RECENT = timedelta(days=4), timedelta(days=1)
#: A process counts as dead when it is still not heard of after so long: the database may just have come back.
DEATH_CONFIRMED = timedelta(seconds=8)
#: Alarms of a process that is gone are over if the one after it has not raised them by then.
CALLED_OFF_AFTER = timedelta(minutes=6)
#: Services cut or refuse longer ones (Discord takes 2,000 characters).
LONGEST_BODY = 1800
MOST_HEARD = 1000
CLOSING_S = 5.0
#: The claim of what was there before notifications were first asked for.
PAST = "past"
#: That of what was sent while nothing could be claimed.
WITHOUT_DATABASE = "database away"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a service said: `problem` is empty where it took the message."""

    service: str
    problem: str = ""


class Services:
    """Where messages go: Apprise URLs, separated by commas. No URL is ever told: `not_understood` has their places."""

    def __init__(self, urls: str) -> None:
        from apprise import Apprise
        from apprise.utils.parse import parse_urls

        self._services: list[Apprise] = []
        self.not_understood: list[int] = []
        for place, url in enumerate(parse_urls(urls), start=1):
            one = Apprise()
            if one.add(url):
                self._services.append(one)
            else:
                self.not_understood.append(place)

    def __len__(self) -> int:
        return len(self._services)

    def send(self, title: str, body: str, progress: Progress = quiet) -> list[Answer]:
        """One after the other, each with Apprise's limits: four seconds to connect and to answer, fifteen for a mail
        server. `progress` hears of each."""
        answers = []
        for one in self._services:
            answers.append(_send(one, title, body))
            progress(1)
        return answers


class _Said(logging.Handler):
    """What Apprise says of a delivery. Its words may hold parts of a URL, and go nowhere."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.words = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.words += record.getMessage()


def _send(one: "Apprise", title: str, body: str) -> Answer:
    said, apprise_log = _Said(), logging.getLogger("apprise")
    name = str(one[0].service_name)
    apprise_log.addHandler(said)
    try:
        taken = one.notify(title=title, body=body, body_format="text")
    finally:
        apprise_log.removeHandler(said)
    if taken:
        return Answer(name)
    if status := re.search(r"error=(\d{3})", said.words):
        return Answer(name, f"it answered with HTTP status {status[1]}")
    if "submitting email" in said.words:
        return Answer(name, "it could not be reached, refused name, password or address, or did not answer in time")
    if "onnection" in said.words:
        return Answer(name, "it could not be reached, or did not answer within 4 seconds")
    return Answer(name, "it did not take the message")


def message(book: str, rows: Sequence[News | Notification]) -> tuple[str, str]:
    """Title and body for one or many changes, the gravest first, no longer than services take."""
    order = list(NewsKind)

    def moment(row: News | Notification) -> datetime:
        return row.at if isinstance(row, News) else row.happened_at

    rows = sorted(rows, key=lambda row: (order.index(NewsKind(row.kind)), moment(row)))
    lines: list[str] = []
    for row in rows:
        line = f"{moment(row).astimezone(NEW_YORK):%b %d %H:%M:%S} {row.text}."
        if sum(map(len, lines)) + len(lines) + len(line) > LONGEST_BODY:
            lines.append(f"And {len(rows) - len(lines)} more: see Notifications in the admin.")
            break
        lines.append(line)
    return f"{book}: {_counts(rows)}", "\n".join([*lines, "Times are New York's."])


def _counts(rows: Sequence[News | Notification]) -> str:
    counts = []
    for kind in NewsKind:
        states = [row.state for row in rows if row.kind == kind]
        if states:
            results = ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states), reverse=True))
            told = f" ({results})" if kind == NewsKind.EXIT else ""
            counts.append(f"{len(states)} {kind}{'s' if len(states) > 1 else ''}{told}")
    return ", ".join(counts)


def note(book: str, told: Sequence[News], now: datetime, *, claim: str = "", sent_at: datetime | None = None) -> None:
    """Store what differs from the state last told of its subject. Two queries at most; a change that another process
    has just stored is stored once."""
    if not told:
        return
    last: dict[str, tuple[int, str]] = {}
    known = Notification.objects.filter(book=book, subject__in={each.subject for each in told})
    for subject, number, state in known.order_by("number").values_list("subject", "number", "state"):
        last[subject] = number, state
    rows = []
    for each in told:
        number, state = last.get(each.subject, (0, ""))
        if each.state == state or (each.good and not number):
            continue
        last[each.subject] = number + 1, each.state
        rows.append(
            Notification(
                book=book,
                kind=each.kind,
                subject=each.subject,
                number=number + 1,
                state=each.state,
                text=each.text[:300],
                happened_at=each.at,
                noted_at=now,
                claim=claim,
                sent_at=sent_at,
            )
        )
    if rows:
        Notification.objects.bulk_create(rows, ignore_conflicts=True)


def is_due(waiting: Sequence[Notification], now: datetime) -> bool:
    """Whether a message goes out now, with everything that waits."""
    times = [row.noted_at for row in waiting]
    return bool(times) and (
        any(row.kind in URGENT for row in waiting) or now - max(times) >= QUIET or now - min(times) >= LONGEST_WAIT
    )


def deliver(book: str, services: Services, now: datetime, *, everything: bool = False) -> int:
    """Claim what is due and send it as one message; how many changes that were."""
    waiting = list(Notification.objects.filter(book=book, claim=""))
    if not waiting or not (everything or is_due(waiting, now)):
        return 0
    claim = uuid4().hex
    Notification.objects.filter(pk__in=[row.pk for row in waiting], claim="").update(claim=claim)
    mine = Notification.objects.filter(claim=claim)
    rows = list(mine.order_by("pk"))
    if not rows:
        return 0
    problems = _send_all(book, services, rows)
    mine.update(sent_at=datetime.now(UTC) if len(problems) < len(services) else None, error="; ".join(problems)[:300])
    return len(rows)


def _send_all(book: str, services: Services, rows: Sequence[News | Notification]) -> list[str]:
    """What kept which services from taking the message."""
    answers = services.send(*message(book, rows))
    problems = [f"{each.service}: {each.problem}" for each in answers if each.problem]
    if problems:
        log.error("notification_not_sent", book=book, changes=len(rows), services=problems)
    return problems


class Notifier:
    """Looks at a book every few seconds and tells what has changed. `hear` is called by whoever logs, in its thread:
    it neither waits nor raises; beyond MOST_HEARD alarms that nobody has looked at yet, the oldest are dropped."""

    def __init__(self, book: str, services: Services, clock: Clock) -> None:
        self._book, self._services, self._clock = book, services, clock
        self._inbox: deque[dict[str, Any]] = deque(maxlen=MOST_HEARD)
        self._heard: list[News] = []
        self._wake, self._closing = Event(), False
        self._since = LOOK_BACK
        self._seen: set[int] = set()
        self._dead: tuple[str, datetime] | None = None
        self._raised: set[str] = set()
        self._began_at: datetime | None = None
        self._trades = False
        self._trouble = ""
        self._outbox = Path(settings.VAR_DIR, "notified")

    # -- in the thread of whoever logs

    def hear(self, event: Mapping[str, Any]) -> None:
        if event.get("event") in news.ALARMS:
            self._inbox.append(dict(event))
            self._wake.set()

    # -- in a thread of its own

    def run(self) -> None:
        while not self._closing:
            self._wake.wait(LOOK_S)
            self._wake.clear()
            self._look_safely()
        self._look_safely(everything=self._trades)
        connection.close()

    def close(self) -> None:
        self._closing = True
        self._wake.set()

    def _look_safely(self, *, everything: bool = False) -> None:
        """Whatever it is, trading goes on, and it is tried again; said once while it stays the same."""
        trouble = ""
        try:
            self.look(everything=everything)
        except Exception as error:  # nothing that goes wrong here may end the thread
            trouble = repr(error)
            if trouble != self._trouble:
                mistake = not isinstance(error, DatabaseError | InterfaceError)
                log.error("notifications_wait", error=trouble, so="trading goes on", exc_info=mistake)
        self._trouble = trouble

    def look(self, *, everything: bool = False) -> None:
        """One unit of work: hear, look, store what has changed, send what is due (or everything that waits)."""
        self._take_heard()
        now = datetime.now(UTC)
        try:
            self._begin(now)
            self._store_what_went_out(now)
            closed = self._closed()
            settled = self._began_at is not None and now - self._began_at >= CALLED_OFF_AFTER
            called_off = self._called_off() if settled else []
            note(self._book, [*self._heard, *closed.values(), *self._states(now), *called_off], now)
            self._noted(closed, settled)
            deliver(self._book, self._services, now, everything=everything)
        except (DatabaseError, InterfaceError):
            connection.close()
            if not self._heard:
                raise
            self._go_without_database()

    @property
    def suspects_death(self) -> bool:
        """Whether a second look, DEATH_CONFIRMED later, would say more."""
        return self._dead is not None

    def _take_heard(self) -> None:
        while self._inbox:
            event, now = self._inbox.popleft(), self._clock.now()
            if event["event"] == "trading_began":
                self._trades, self._began_at = True, datetime.now(UTC)
            told = news.overheard(event, now)
            self._heard.append(told)
            (self._raised.discard if told.good else self._raised.add)(told.subject)

    def _begin(self, now: datetime) -> None:
        """What was there before the first look at a book is no news."""
        if self._since == LOOK_BACK and not Notification.objects.filter(book=self._book).exists():
            began = News(NewsKind.HALT, "notifications", "began", "Notifications begin", now)
            note(self._book, [began, *self._closed().values(), *self._states(now)], now, claim=PAST)

    def _closed(self) -> dict[int, News]:
        since = self._clock.now() - self._since
        return news.exits(self._book, since.astimezone(NEW_YORK).date(), self._seen)

    def _states(self, wall_now: datetime) -> list[News]:
        market_now = self._clock.now()
        return [
            *news.refusals(self._book, market_now - self._since),
            news.halt(self._book, market_now),
            *news.drift(self._book, wall_now - self._since),
            *self._process(wall_now),
        ]

    def _noted(self, closed: Mapping[int, News], settled: bool) -> None:
        self._heard.clear()
        self._seen.update(closed)
        self._since = RECENT
        if settled:
            self._began_at = None

    def _process(self, now: datetime) -> list[News]:
        told = news.process(self._book, now)
        if told is None or told.state != "died":
            self._dead = None
            return [] if told is None else [told]
        if self._dead is None or self._dead[0] != told.subject:
            self._dead = told.subject, now
        return [told] if now - self._dead[1] >= DEATH_CONFIRMED else []

    def _called_off(self) -> list[News]:
        alarms = Notification.objects.filter(book=self._book, state__in=news.ENDS).exclude(subject__in=self._raised)
        return news.called_off(alarms.order_by().values_list("subject", "state").distinct(), self._clock.now())

    # -- while the database is away, files decide what was told

    def _go_without_database(self) -> None:
        told = []
        for each in self._heard:
            path = self._file_of(each.subject)
            before = _told_in(path)
            if each.state != (before and before.state) and not (each.good and before is None):
                path.parent.mkdir(exist_ok=True)
                draft = path.with_suffix(".new")
                draft.write_bytes(orjson.dumps({"book": self._book, **asdict(each)}))
                draft.replace(path)
                told.append(each)
        self._heard.clear()
        if told:
            _send_all(self._book, self._services, told)

    def _file_of(self, subject: str) -> Path:
        return self._outbox / f"{hashlib.sha256(f'{self._book} {subject}'.encode()).hexdigest()[:32]}.json"

    def _store_what_went_out(self, now: datetime) -> None:
        for path in self._outbox.glob("*.json"):
            told = _told_in(path)
            if told is not None and self._file_of(told.subject) == path:  # not of another book
                note(self._book, [told], now, claim=WITHOUT_DATABASE, sent_at=told.at)
                path.unlink(missing_ok=True)


def _told_in(path: Path) -> News | None:
    with suppress(FileNotFoundError, ValueError, TypeError, KeyError):
        told = orjson.loads(path.read_bytes())
        del told["book"]
        return News(**{**told, "kind": NewsKind(told["kind"]), "at": datetime.fromisoformat(told["at"])})
    return None


@contextmanager
def notifying(book: str, clock: Clock) -> Iterator[None]:
    """Notify of a book for a block and of its end, where NOTIFY_URLS is set; leaving it takes five seconds at most."""
    if not settings.NOTIFY_URLS:
        yield
        return
    services = Services(settings.NOTIFY_URLS)
    if services.not_understood:
        log.error("notify_urls_not_understood", places=services.not_understood, todo="run manage.py notify_test")
    notifier = Notifier(book, services, clock)
    logs.listeners.append(notifier.hear)
    thread = Thread(target=notifier.run, name="notifications", daemon=True)
    thread.start()
    try:
        yield
    except CommandError as error:
        if error.returncode != INTERRUPTED:
            notifier.hear({"event": "trading_ended", "reason": str(error)})
        raise
    except Exception as error:
        notifier.hear({"event": "trading_ended", "reason": f"a mistake in the program ({type(error).__name__})"})
        raise
    finally:
        logs.listeners.remove(notifier.hear)
        notifier.close()
        thread.join(CLOSING_S)


def notify_once(book: str, clock: Clock) -> int:
    """Look at a book from a process that does not trade it, and send what is due; how many services there are."""
    services = Services(settings.NOTIFY_URLS)
    notifier = Notifier(book, services, clock)
    notifier.look()
    if notifier.suspects_death:
        time.sleep(DEATH_CONFIRMED.total_seconds())
        notifier.look()
    return len(services)
