"""A message by e-mail and by ntfy: through a real SMTP server and a real HTTP server on this machine."""

import json
import logging
import threading
from base64 import b64encode
from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from positions.clock import ReplayClock
from positions.market.calendar import NEW_YORK
from tests.factories import TradeFactory
from tests.site.test_notifications import NOW, unused_port
from tests.site.test_trade_command import BOOK
from tradingsite.models import Notification
from tradingsite.notifying import Notifier, Services

aiosmtpd_controller = pytest.importorskip("aiosmtpd.controller", reason="aiosmtpd stands in pyproject.toml's dev group")

pytestmark = pytest.mark.django_db(transaction=True)

USER, PASSWORD, TOPIC = "desk", "a-secret-word", "a-secret-topic"


class Mailbox:
    """An SMTP server that takes mail of whoever knows the password."""

    def __init__(self) -> None:
        from aiosmtpd.smtp import AuthResult

        self.received: list[Message] = []
        self.recipients: list[str] = []
        port = unused_port()
        self._controller = aiosmtpd_controller.Controller(
            self,
            hostname="127.0.0.1",
            port=port,
            authenticator=lambda server, session, envelope, mechanism, given: AuthResult(
                success=(given.login, given.password) == (USER.encode(), PASSWORD.encode()), handled=False
            ),
            auth_require_tls=False,
        )
        self._controller.start()
        self.url = self.url_with(PASSWORD)

    def url_with(self, password: str) -> str:
        return f"mailto://{USER}:{password}@127.0.0.1:{self._controller.port}?from=desk@example.com&to=ada@example.com"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802  # aiosmtpd's name
        if not session.authenticated:
            return "530 who are you?"
        self.received.append(message_from_bytes(envelope.content, policy=default))
        self.recipients += envelope.rcpt_tos
        return "250 taken"

    def close(self) -> None:
        self._controller.stop()


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    box = Mailbox()
    yield box
    box.close()


class Ntfy:
    """What a server of ntfy is sent: headers and JSON."""

    def __init__(self) -> None:
        self.received: list[tuple[dict[str, str], dict[str, str]]] = []
        ntfy = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                ntfy.received.append((dict(self.headers), json.loads(body)))
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *about: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.url = f"ntfy://{USER}:{PASSWORD}@127.0.0.1:{self._server.server_port}/{TOPIC}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def ntfy() -> Iterator[Ntfy]:
    made = Ntfy()
    yield made
    made.close()


def closed_trade_told_by(*urls: str) -> str:
    """A trade closes, and several processes look again and again; gives the line that is to be told."""
    notifiers = [Notifier(BOOK, Services(",".join(urls)), ReplayClock(NOW)) for _ in range(2)]
    notifiers[0].look()
    trade = TradeFactory(book=BOOK, symbol="KO")
    for notifier in notifiers * 2:
        notifier.look(everything=True)
    at = f"{trade.exited_at.astimezone(NEW_YORK):%b %d %H:%M:%S}"
    return (
        f"{at} KO long closed by target: +19.00 dollars after fees, +1.90 R, 10 shares, 100.00 to 102.00.\n"
        "Times are New York's."
    )


def test_a_trade_that_closes_is_one_mail_with_its_result(mailbox: Mailbox) -> None:
    told = closed_trade_told_by(mailbox.url)
    (mail,) = mailbox.received
    assert mailbox.recipients == ["ada@example.com"]
    assert (mail["From"], mail["To"]) == ("desk@example.com", "ada@example.com")
    assert mail["Subject"] == f"{BOOK}: 1 exit (1 WIN)"
    assert mail.get_content_type() == "text/plain"
    assert text_of(mail) == told
    assert PASSWORD not in mail.as_string()
    assert Notification.objects.get(kind="exit").error == ""


def test_a_trade_that_closes_is_one_message_of_ntfy_in_its_topic(ntfy: Ntfy) -> None:
    told = closed_trade_told_by(ntfy.url)
    ((headers, sent),) = ntfy.received
    assert sent == {"topic": TOPIC, "title": f"{BOOK}: 1 exit (1 WIN)", "message": told}
    assert headers["Authorization"] == f"Basic {b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"


def test_both_at_once_get_it_once_each(mailbox: Mailbox, ntfy: Ntfy) -> None:
    told = closed_trade_told_by(mailbox.url, ntfy.url)
    assert [text_of(mail) for mail in mailbox.received] == [told]
    assert [sent["message"] for _, sent in ntfy.received] == [told]


def test_a_mail_server_that_refuses_is_told_without_a_word_of_the_address(
    mailbox: Mailbox, settings: Any, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    settings.NOTIFY_URLS = mailbox.url_with("another-secret-word")
    caplog.set_level(logging.DEBUG)
    with pytest.raises(CommandError, match="1 of 1 services did not take the message"):
        call_command("notify_test")
    shown = capsys.readouterr()
    assert "refused name, password or address" in " ".join(shown.out.replace("│", " ").split())
    told = shown.out + shown.err + "".join(record.getMessage() for record in caplog.records if ours(record))
    assert "another-secret-word" not in told
    assert "ada@example.com" not in told
    assert mailbox.received == []


def test_a_mail_server_that_is_away_is_told_so(settings: Any, capsys: pytest.CaptureFixture[str]) -> None:
    settings.NOTIFY_URLS = f"mailto://{USER}:{PASSWORD}@127.0.0.1:{unused_port()}?from=desk@example.com"
    with pytest.raises(CommandError, match="1 of 1 services did not take the message"):
        call_command("notify_test")
    assert "it could not be reached" in capsys.readouterr().out


def text_of(mail: Message) -> str:
    content = mail.get_payload(decode=True)
    assert isinstance(content, bytes)
    return content.decode().replace("\r\n", "\n").strip()


def ours(record: logging.LogRecord) -> bool:
    """Not what the server of this test says."""
    return not record.name.startswith("mail")
