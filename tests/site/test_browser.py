"""The pages in a real browser, at the width of a phone and of a desk, light and dark: no error in the console, no
request that leaves the machine, nothing wider than the screen. Pictures are left in `var/screenshots` (or the folder
SCREENSHOTS) for somebody to look at.

    python -m pytest tests/site/test_browser.py -m slow
"""

import os
import shutil
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.urls import reverse

from ml.model_trainer import ModelTrainer
from ml.models import MLModel, Performance, Prediction
from ml.performance_tracker import PerformanceTracker
from positions.market.feeds.simulated import SimulatedMarket
from positions.models import Trade
from reports.daily import write_report
from tests.runs import run
from tradingsite.dashboard import CLOSED_SHOWN
from tradingsite.scoring import score_test_sessions

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is in the dev group of pyproject.toml")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine; install the system's package"),
    pytest.mark.django_db(transaction=True),
]

WIDTHS = {"desk": (1440, 900), "phone": (390, 844)}
SCHEMES = ("light", "dark")


@pytest.fixture
def site(live_server: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """A site with a trained model and another to compare it with, its trades and a report of the last session."""
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")  # playwright runs an event loop beside the tests' own queries
    User.objects.create_superuser("ada", password="lovelace-1843")
    run(SimulatedMarket(sessions=25, seed=7))
    model = ModelTrainer("simulated").train().model
    assert model is not None
    score_test_sessions(model, lambda done: None)
    sessions = list(trade_sessions())
    PerformanceTracker("simulated").record_sessions(sessions)
    write_report("simulated", sessions[-1])
    _live_signals(model)
    model.pk, model.version = None, f"{model.version}b"
    model.save()
    return str(live_server.url)


def trade_sessions() -> QuerySet[Trade, date]:
    return Trade.objects.order_by("session").values_list("session", flat=True).distinct()


def _live_signals(model: MLModel) -> None:
    """As if it had been asked of the signals of two more sessions."""
    last = Performance.objects.latest("session")
    side = {"model": model.pk, "n": 90, "won": 40, "r": 4.5, "p_geometry": 33.0}
    for day in (1, 2):
        last.pk, last.session = None, last.session + timedelta(days=1)
        last.judged = [{**side, "refused": False, "r": 9.0 * day}, {**side, "refused": True, "won": 30, "r": -6.0}]
        last.save()


@pytest.fixture
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def pages() -> dict[str, str]:
    judged = Prediction.objects.exclude(contributions=None).values("signal_key")
    trade = Trade.objects.filter(signal_key__in=judged).first()
    model, other = MLModel.objects.order_by("pk")
    assert trade is not None
    return {
        "dashboard": reverse("admin:index"),
        "trades": reverse("admin:positions_trade_changelist"),
        "trade": reverse("admin:positions_trade_change", args=[trade.pk]),
        "models": reverse("admin:ml_mlmodel_changelist"),
        "model": reverse("admin:ml_mlmodel_change", args=[model.pk]),
        "compare": f"{reverse('admin:ml_mlmodel_compare')}?one={model.pk}&other={other.pk}",
        "promote": reverse("admin:ml_mlmodel_promote", args=[model.pk]),
        "report": reverse("report", args=["simulated", trade_sessions().last()]),
        "settings": reverse("admin:constance_config_changelist"),
    }


#: The figures that a page is to draw.
FIGURES = {
    "dashboard": ["equity"],
    "trade": ["candles", "contributions"],
    "report": ["equity", "timeline", "exits", "distribution", "calibration"],
    "model": ["value", "calibration", "roc", "shap", "gain", "live"],
}


def sign_in(page: Any, site: str) -> None:
    page.goto(f"{site}{reverse('admin:login')}")
    page.fill("[name=username]", "ada")
    page.fill("[name=password]", "lovelace-1843")
    page.click("[type=submit]")
    page.wait_for_selector("#dashboard")


def listen(page: Any, site: str, where: str, complaints: list[str]) -> None:
    """Note errors and whatever is asked of another machine."""

    def asked(request: Any) -> None:
        if not request.url.startswith((site, "data:", "blob:")):
            complaints.append(f"{where}: asked for {request.url}")

    page.on("console", lambda said: complaints.append(f"{where}: {said.text}") if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(f"{where}: {error}"))
    page.on("request", asked)


def test_every_page_is_quiet_whole_and_drawn_at_every_width_and_in_both_lights(site: str, browser: Any) -> None:
    folder = Path(os.environ.get("SCREENSHOTS", str(Path(settings.BASE_DIR) / "var" / "screenshots")))
    complaints: list[str] = []
    for width, (x, y) in WIDTHS.items():
        for scheme in SCHEMES:
            context = browser.new_context(viewport={"width": x, "height": y}, color_scheme=scheme)
            page = context.new_page()
            where = f"{width} {scheme}"
            listen(page, site, where, complaints)
            sign_in(page, site)
            for name, address in pages().items():
                assert page.goto(f"{site}{address}").status == 200
                for figure in FIGURES.get(name, []):
                    page.wait_for_selector(f"#{figure} .main-svg")
                wider = page.evaluate("document.documentElement.scrollWidth - innerWidth")
                if wider > 0:
                    complaints.append(f"{where}: {name} is {wider} pixels wider than the screen")
                folder.mkdir(parents=True, exist_ok=True)
                page.screenshot(path=folder / f"{name}-{width}-{scheme}.png", full_page=True)
            context.close()
    assert not complaints


@pytest.mark.parametrize("width", WIDTHS)
def test_halting_asks_first_then_shows_who_and_resumes(width: str, site: str, browser: Any) -> None:
    x, y = WIDTHS[width]
    page = browser.new_page(viewport={"width": x, "height": y})
    sign_in(page, site)
    page.once("dialog", lambda dialog: dialog.dismiss())
    page.click("text=Halt entries")
    assert page.is_visible("text=Allowed, within the protections")
    page.once("dialog", lambda dialog: dialog.accept())
    page.click("text=Halt entries")
    page.wait_for_selector("text=Halted by ada")
    page.once("dialog", lambda dialog: dialog.accept())
    page.click("text=Resume")
    page.wait_for_selector("text=Allowed, within the protections")


def test_an_export_is_saved_and_says_how_many_rows_it_has(site: str, browser: Any) -> None:
    page = browser.new_page()
    sign_in(page, site)
    page.goto(f"{site}{reverse('admin:positions_trade_changelist')}")
    with page.expect_download() as saved:
        page.click("#export >> text=CSV")
    trades = Trade.objects.count()
    assert saved.value.suggested_filename == "trades.csv"
    assert len(Path(saved.value.path()).read_text().splitlines()) == trades + 1
    page.wait_for_selector(f"#export >> text=trades.csv: {trades:,} rows.")


def test_the_dashboard_renews_itself_and_says_when_it_cannot(site: str, browser: Any) -> None:
    page = browser.new_page()
    page.clock.install()
    sign_in(page, site)
    Trade.objects.all().update(exit_reason="manual")
    assert page.locator("#dashboard").get_by_text("manual").count() == 0
    page.clock.fast_forward(16_000)
    page.wait_for_selector("#dashboard >> text=manual")
    page.wait_for_selector("#equity .main-svg")
    page.once("dialog", lambda dialog: dialog.dismiss())
    page.click("text=Halt entries")
    for at, reason in (("text=Halt entries", "low_volume"), ("#book", "momentum_reversal")):
        page.focus(at)
        Trade.objects.all().update(exit_reason=reason)
        page.clock.fast_forward(16_000)
        page.wait_for_selector(f"#dashboard >> text={reason} >> nth={CLOSED_SHOWN - 1}")
        assert page.locator(at).evaluate("each => each === document.activeElement")
    page.context.clear_cookies()
    page.clock.fast_forward(16_000)
    page.wait_for_selector("#stale:not([hidden])")
