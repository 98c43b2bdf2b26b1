from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from tests.site.conftest import make_session, permit

PAGE = "/reports/paper-1/2024-01-03/"


@pytest.fixture
def written(tmp_path: Path, settings: Any) -> Path:
    settings.VAR_DIR = tmp_path
    path = tmp_path / "reports" / "paper-1" / "2024-01-03.html"
    path.parent.mkdir(parents=True)
    path.write_text("<h1>What happened</h1>")
    (tmp_path / "secret_key").write_text("do not tell")
    (tmp_path / "2024-01-03.html").write_text("do not tell")
    return path


def test_a_written_report_is_served_and_may_load_nothing_from_elsewhere(written: Path, owner_client: Client) -> None:
    answer = owner_client.get(PAGE)
    assert answer.content == b"<h1>What happened</h1>"
    assert "default-src 'none'" in answer["Content-Security-Policy"]


def test_the_list_names_every_report(written: Path, owner_client: Client) -> None:
    assert PAGE in owner_client.get("/reports/").content.decode()


def test_without_reports_the_list_says_how_to_write_one(tmp_path: Path, settings: Any, owner_client: Client) -> None:
    settings.VAR_DIR = tmp_path
    assert "manage.py daily_report" in owner_client.get("/reports/").content.decode()


def test_the_dashboard_links_to_the_report_of_the_session(written: Path, owner_client: Client) -> None:
    from datetime import date

    make_session("paper:1", date(2024, 1, 3))
    assert PAGE in owner_client.get("/admin/", {"book": "paper:1"}).content.decode()


@pytest.mark.parametrize(
    "address",
    [
        "/reports/paper-1/2024-01-04/",
        "/reports/paper-1/2024-13-45/",
        "/reports/../2024-01-03/",
        "/reports/%2e%2e/2024-01-03/",
        "/reports/./2024-01-03/",
        "/reports/..%2f..%2fetc/2024-01-03/",
        "/reports/paper-1%00/2024-01-03/",
        f"/reports/{'a' * 5000}/2024-01-03/",
        "/reports/paper-1/..%2f..%2fsecret_key/",
    ],
)
def test_an_address_reaches_nothing_but_reports(written: Path, owner_client: Client, address: str) -> None:
    answer = owner_client.get(address)
    assert answer.status_code in {301, 404}
    assert b"do not tell" not in answer.content


def test_a_stranger_is_sent_to_the_login(written: Path, client: Client, db: None) -> None:
    for address in (PAGE, "/reports/"):
        answer = client.get(address)
        assert answer.status_code == 302
        assert answer["Location"].startswith("/admin/login/")


def test_staff_needs_the_permission_to_view_trades(written: Path, newcomer: User, newcomer_client: Client) -> None:
    assert newcomer_client.get(PAGE).status_code == 403
    permit(newcomer, "positions.view_trade")
    assert newcomer_client.get(PAGE).status_code == 200


def test_plotly_js_comes_out_of_the_installed_package(client: Client) -> None:
    answer = client.get("/static/plotly/plotly.min.js")
    assert answer.status_code == 200
    assert b"plotly.js v" in b"".join(answer)[:4096]
