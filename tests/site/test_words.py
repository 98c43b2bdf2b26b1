"""No page of the site has a raw dump, an unexplained abbreviation, an unlabelled number or an empty state without a
sentence on what to do: held over every address, with a row in every table and with none."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group
from django.core.management import call_command
from django.db import models
from django.test import Client
from django.test.html import Element, parse_html
from django.urls import reverse

from ml.models import Prediction
from positions.models import Instrument, Trade
from reports.daily import report_path
from tests.factories import TradeFactory
from tests.site.documents import text_of
from tests.site.test_every_address import ADDRESSES
from tradingsite.kit.glossary import GLOSSARY, abbreviations, explain
from tradingsite.settings import LIVE_SETTINGS

#: Capitals that are no abbreviation that a page would have to explain, and why.
PLAIN = {
    "A": "the article, or the user's initial",
    "ACCOUNT": "stands for what the reader puts there",
    "FILE": "stands for what the reader puts there",
    "HASH": "stands for what the reader puts there",
    "USER": "stands for what the reader puts there",
    "I": "the one who is asked whether he is sure",
    "ID": "everybody's word",
    "N": "the name of a task in these tests",
    "S": "of S&P, a name",
    "P": "of P(win), which is explained as a whole, or of S&P",
    "US": "everybody's word",
}
CAPITALS = re.compile(r"(?<![\w-])[A-Z][A-Z0-9]*(?:[/_][A-Z0-9]+)*(?!\w)")
DUMP = re.compile(r"""\{["']|\[\{|\[\]|\{\}|<object|\bDecimal\(|\bdatetime\.|\bOrderedDict\b|\bNone\b|\bnan\b""")
#: Words by which a help text tells what a number is: a unit, or what is counted.
UNITS = re.compile(
    r"\b(dollars?|R|shares?|seconds|microseconds|milliseconds|minutes|hour|fraction|ratio|probability|P\(win\)|odds|"
    r"points|times|mean|ATR|bars|trades|signals|stops|sessions|symbols|predictions|requests|moments|values|number|"
    r"wins|Monday)(?!\w)"
)
WHAT_TO_DO = re.compile(r"python manage\.py \w+|docs/\w+\.md")


UNSEEN = {"script", "style", "title", "template", "svg"}


def shown(node: Element | str) -> str:
    """What people read of a part of a page."""
    if isinstance(node, str):
        return node
    is_icon = "material-symbols-outlined" in dict(node.attributes).get("class", "")
    return "" if node.name in UNSEEN or is_icon else " ".join(map(shown, node.children))


def parts(node: Element | str, name: str, within: str = "") -> Iterator[Element]:
    """The elements of that name, but for those of a `within` inside this one."""
    for child in () if isinstance(node, str) else node.children:
        if not isinstance(child, str):
            if child.name == name:
                yield child
            if child.name != within:
                yield from parts(child, name, within)


@dataclass
class Page:
    address: str
    html: str

    @cached_property
    def root(self) -> Element:
        return parse_html(self.html)

    @cached_property
    def text(self) -> str:
        return " ".join(shown(self.root).split())


def walk(client: Client, addresses: Iterable[str] = ADDRESSES) -> list[Page]:
    """Those that answer in HTML."""
    pages = []
    for address in addresses:
        if address.startswith("/api/") and address != reverse("docs"):
            continue
        answer = client.get(address, follow=True)
        if not answer.streaming and answer["Content-Type"].startswith("text/html"):
            pages.append(Page(address, answer.content.decode()))
    return pages


def dumps(page: Page) -> Iterator[str]:
    yield from (page.text[max(0, at.start() - 40) : at.end() + 40] for at in DUMP.finditer(page.text))


def unexplained(page: Page) -> Iterator[str]:
    """Capitals that are neither explained at the foot nor plain: settings, which docs/settings.md explains, and tickers
    are."""
    tickers = {*Trade.objects.values_list("symbol", flat=True)}
    for sector in Instrument.objects.values("symbol", "sector_etf"):
        tickers.update(sector.values())
    told = {shown(word).strip() for foot in parts(page.root, "footer") for word in parts(foot, "dt")}
    yield from abbreviations(page.html.replace("WINs", "WIN")) - told if told else ()
    for word in set(CAPITALS.findall(page.text)) - {*PLAIN, *told, *tickers}:
        if word not in LIVE_SETTINGS and ("_" not in word or word not in text_of("docs/settings.md")):
            yield word


def unlabelled(page: Page) -> Iterator[str]:
    """Cells of a table without a head, or a line without its name where the table has no heads."""
    for table in parts(page.root, "table"):
        heads = [head for top in parts(table, "thead", "table") for head in parts(top, "th", "table")]
        names = [shown(head).strip() or "box" * bool([*parts(head, "input")]) for head in heads]
        for line in parts(table, "tr", "table"):
            cells = [*parts(line, "td", "table")]
            named = [shown(name).strip() for name in parts(line, "th", "table")]
            enough = len(names) == len(cells) + len(named) and all(names) if names else any(named)
            if cells and not enough and not [*parts(line, "button")]:
                yield f"{names} over {shown(line)}"


@pytest.fixture
def reports_folder(settings: Any, tmp_path: Path) -> Path:
    """One of the test's own, empty."""
    settings.VAR_DIR = tmp_path
    return tmp_path


CHECKS: tuple[Callable[[Page], Iterator[str]], ...] = (dumps, unexplained, unlabelled)


def complaints(pages: list[Page]) -> list[str]:
    return [f"{page.address}: {check.__name__}: {what}" for page in pages for check in CHECKS for what in check(page)]


def test_no_page_has_a_dump_an_unexplained_word_or_a_cell_without_a_head(
    everything: None, owner_client: Client
) -> None:
    Prediction.objects.update(contributions=[{"feature": "rsi14", "value": 61.5, "log_odds": 0.12}])
    TradeFactory(symbol="MSFT", still_open=True)
    pages = walk(owner_client)
    assert len(pages) > 80
    assert complaints(pages) == []


def test_nor_has_a_page_of_an_empty_site(reports_folder: Path, owner_client: Client) -> None:
    Group.objects.all().delete()
    assert complaints(walk(owner_client, [address for address in ADDRESSES if "/1/" not in address])) == []


def test_nor_has_a_daily_report(rows: Trade, reports_folder: Path) -> None:
    call_command("daily_report", "--session", rows.session.isoformat())
    html = report_path(rows.book, rows.session).read_text()
    page = Page("the report", html)
    assert complaints([page]) == []
    assert "what a trade risked at entry" in page.text


@pytest.mark.parametrize("model", admin.site._registry)
def test_a_list_without_rows_says_which_command_or_page_fills_it(model: type[models.Model]) -> None:
    if model._meta.model_name != "config":  # constance's page of settings, which is never empty
        assert WHAT_TO_DO.search(admin.site._registry[model].when_empty)


@pytest.mark.parametrize("model", [model for model, page in admin.site._registry.items() if page.search_fields])
def test_a_search_without_a_hit_says_so_and_leads_back(
    model: type[models.Model], everything: None, owner_client: Client
) -> None:
    address = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
    page = Page(address, owner_client.get(address, {"q": "nothing-like-it"}).content.decode())
    assert "Nothing matches." in page.text
    assert "Show everything" in page.text


def test_dashboard_and_reports_of_an_empty_site_say_what_to_do(reports_folder: Path, owner_client: Client) -> None:
    for address in (reverse("admin:index"), reverse("reports")):
        assert WHAT_TO_DO.search(Page(address, owner_client.get(address).content.decode()).text)


def test_every_card_of_the_dashboard_says_what_it_is_and_what_it_is_worth(rows: Trade, owner_client: Client) -> None:
    cards = owner_client.get(reverse("admin:index")).context["cards"]
    assert cards
    assert all(card.title and card.value and card.note for card in cards)


OURS = [model for model in admin.site._registry if model._meta.app_label in {"positions", "ml", "tradingsite"}]


@pytest.mark.parametrize("model", OURS)
def test_every_number_has_its_unit_or_says_what_it_counts(model: type[models.Model]) -> None:
    numbers = (models.DecimalField, models.FloatField, models.IntegerField)
    columns = [each for each in model._meta.concrete_fields if isinstance(each, numbers) and not each.primary_key]
    assert [each.name for each in columns if not UNITS.search(str(each.help_text))] == []


def test_a_list_tells_what_its_columns_say(rows: Trade, owner_client: Client) -> None:
    address = reverse("admin:positions_trade_changelist")
    assert "P/L : dollars, after fees" in Page(address, owner_client.get(address).content.decode()).text


class TestGlossary:
    def test_indicators_are_known_in_small_letters_and_with_their_number(self) -> None:
        assert abbreviations("<td>rsi14</td><td>macd histogram atr</td>") == {"RSI", "MACD", "ATR"}

    def test_words_of_english_are_meant_in_capitals_alone(self) -> None:
        assert abbreviations("no loss can pass") == set()
        assert abbreviations("WINs and LOSSes, a PASS") == {"WIN", "LOSS", "PASS"}

    def test_nothing_is_found_in_tags_scripts_or_inside_of_other_words(self) -> None:
        assert abbreviations('<i class="AUC"></i><script>AUC</script> MACDONALD LOW_ATR_EXIT') == set()

    def test_an_explanation_explains_its_own_words(self) -> None:
        page = explain('AUC <footer id="abbreviations"></footer>')
        assert GLOSSARY["ROC"] in page

    def test_a_page_without_any_has_an_empty_foot(self) -> None:
        assert "<div>" not in explain('nothing <footer id="abbreviations"></footer>')
