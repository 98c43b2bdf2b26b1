import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from threading import Barrier, BrokenBarrierError
from typing import Any

import pytest
from constance import config
from constance.forms import ConstanceForm
from constance.utils import get_values
from django.apps import apps
from django.conf import settings
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, User
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.db.models import Model
from django.test import Client, RequestFactory
from django.urls import reverse
from django_q.models import Failure, OrmQ, Schedule, Success
from pytest_django import DjangoAssertNumQueries

from ml.features import FEATURES
from ml.models import DriftCheck, MLModel, Prediction, TradeFeatures
from positions.models import ErrorNote, Instrument, PositionExit, Trade
from tests.factories import MLModelFactory, TradeFactory
from tests.site.conftest import HUGE_ARTIFACT, fill_tables, permit
from tradingsite.groups import OPERATOR, VIEWER
from tradingsite.kit import admin as kit
from tradingsite.kit.readable import table
from tradingsite.navigation import navigation
from tradingsite.pages.live_settings import last_changes

OURS = [model for model in admin.site._registry if model._meta.app_label in {"positions", "ml", "tradingsite"}]
TABLES = {
    "trades", "shadow_trades", "rule_notes", "error_notes", "position_exits", "stop_moves", "order_intents",
    "worker_leases", "instruments",
    "ml_trade_features", "ml_models", "ml_predictions", "ml_drift", "ml_performance", "notifications",
}  # fmt: skip
LOOKED_AT = [model for model in OURS if model is not Instrument]

SEARCHED = [
    (model, name)
    for model, page in admin.site._registry.items()
    if isinstance(page, kit.TableAdmin)
    for name in page.search_fields
]


def address(model: type, page: str = "changelist", *args: object) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}", args=args)


def test_every_table_of_ours_is_in_the_admin() -> None:
    assert {model._meta.db_table for model in OURS} >= TABLES


def test_every_table_of_the_admin_is_in_the_side_bar(owner_client: Client) -> None:
    page = owner_client.get(reverse("admin:index")).content.decode()
    assert [model for model in admin.site._registry if f'href="{address(model)}"' not in page] == []


@pytest.mark.parametrize("group", [VIEWER, OPERATOR])
def test_the_groups_may_look_at_every_table_of_ours(group: str, newcomer: User, newcomer_client: Client) -> None:
    newcomer.groups.add(Group.objects.get(name=group))
    assert [model for model in OURS if newcomer_client.get(address(model)).status_code != 200] == []


@pytest.mark.parametrize("model", OURS)
def test_every_list_and_detail_page_opens(model: type, rows: Trade, owner_client: Client) -> None:
    row = model.objects.first()
    assert owner_client.get(address(model)).status_code == 200
    assert owner_client.get(address(model, "change", row.pk)).status_code == 200


@pytest.mark.parametrize("model", LOOKED_AT)
def test_not_even_the_owner_can_add_change_or_delete_a_recorded_row(
    model: type, rows: Trade, owner_client: Client
) -> None:
    row = model.objects.first()
    before = list(model.objects.values())
    assert owner_client.get(address(model, "add")).status_code == 403
    assert owner_client.post(address(model, "change", row.pk), {"book": "live:1"}).status_code == 403
    assert owner_client.post(address(model, "delete", row.pk), {"post": "yes"}).status_code == 403
    assert list(model.objects.values()) == before


@pytest.mark.parametrize("model", OURS)
def test_staff_without_the_permission_sees_no_table(model: type, rows: Trade, newcomer_client: Client) -> None:
    assert newcomer_client.get(address(model)).status_code == 403


@pytest.mark.parametrize("model", OURS)
def test_an_empty_table_says_what_to_do(model: type, owner_client: Client) -> None:
    sentence = admin.site._registry[model].when_empty
    assert sentence
    assert sentence in owner_client.get(address(model)).content.decode()


@pytest.mark.parametrize("model", OURS)
def test_a_list_takes_as_many_queries_for_ten_rows_as_for_one(
    model: type,
    rows: Trade,
    owner_client: Client,
    django_assert_max_num_queries: DjangoAssertNumQueries,
) -> None:
    owner_client.get(address(model))
    with django_assert_max_num_queries(8) as few:
        owner_client.get(address(model))
    other = MLModel.objects.get()
    for _ in range(10):
        fill_tables(TradeFactory(), other)
    with django_assert_max_num_queries(len(few.captured_queries)):
        owner_client.get(address(model))


def test_counting_stops_at_the_cap(rows: Trade, owner_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(4):
        TradeFactory()
    assert "5 trades" in " ".join(owner_client.get(address(Trade)).content.decode().split())
    monkeypatch.setattr(kit, "COUNTED_AT_MOST", 3)
    page = " ".join(owner_client.get(address(Trade)).content.decode().split())
    assert "3+ trades : filter for what lies further back" in page


def test_a_search_finds_a_symbol_in_lower_case_and_nothing_that_merely_contains_it(
    rows: Trade, owner_client: Client
) -> None:
    TradeFactory(symbol="AAPLX")
    found = owner_client.get(address(Trade), {"q": "aapl"}).context["cl"].result_list
    assert [trade.symbol for trade in found] == ["AAPL"]


def test_a_search_with_a_dash_finds_the_key_of_a_signal_in_every_table_that_has_one(
    rows: Trade, owner_client: Client
) -> None:
    TradeFactory()
    for model in (Trade, TradeFeatures, Prediction, PositionExit):
        found = owner_client.get(address(model), {"q": rows.signal_key}).context["cl"].result_list
        assert len(found) == 1
        assert not owner_client.get(address(model), {"q": "X-1"}).context["cl"].result_list


@pytest.mark.parametrize(("model", "searched"), SEARCHED)
def test_a_search_finds_what_is_stored_in_each_of_its_columns_whichever_its_case_spaces_or_dashes(
    model: type[Model], searched: str, everything: None, owner_client: Client
) -> None:
    of_a_trade, _, column = searched.rpartition("__")[0].rpartition("__")
    is_symbol, is_key = column == "symbol", column.endswith(("_key", "_id"))
    for stored in (
        ("KO", "BRK-B") if is_symbol else ("KO-1Z-long",) if is_key else ("Health Care", "model_skips", "a-b")
    ):
        (Trade if of_a_trade else model).objects.update(**{column: stored})
        for typed in (stored, f" {stored} ", *([stored.lower()] if is_symbol else [])):
            assert owner_client.get(address(model), {"q": typed}).context["cl"].result_count == 1
        assert owner_client.get(address(model), {"q": stored[:-1]}).context["cl"].result_count == 0


def test_instruments_are_found_by_sector(rows: Trade, owner_client: Client) -> None:
    assert len(owner_client.get(address(Instrument), {"q": "technology"}).context["cl"].result_list) == 1


def test_trades_can_be_narrowed_by_book_session_and_outcome(rows: Trade, owner_client: Client) -> None:
    other = TradeFactory(book="replay:0123456789ab", outcome="LOSS", signal_at=rows.signal_at + timedelta(days=1))

    def found(**query: str) -> list[Trade]:
        return list(owner_client.get(address(Trade), query).context["cl"].result_list)

    assert found(book=other.book) == [other]
    assert found(session_from=str(other.session), session_to=str(other.session)) == [other]
    assert found(outcome__exact="WIN") == [rows]


def test_the_draft_of_a_run_that_goes_on_is_no_book_to_filter_by(rows: Trade, owner_client: Client) -> None:
    TradeFactory(book="simulated~3")
    page = owner_client.get(address(Trade)).content.decode()
    assert 'value="simulated"' in page
    assert 'value="simulated~3"' not in page


BEYOND = 2**63  # the first number that no column holds
MEANINGLESS = [
    "positions/shadowtrade/?book__range=x", "positions/trade/?id__range=2024", "positions/shadowtrade/?id__range=",
    "positions/trade/?book=%00", "positions/positionexit/?trade=%00", "ml/mlmodel/?version=%00", "ml/mlmodel/?q=%00",
    f"positions/positionexit/?trade={BEYOND}", f"positions/positionexit/?trade__exact={BEYOND}",
    f"positions/trade/?id__in={BEYOND}", f"positions/rulenote/?trade_id__exact={BEYOND}",
    "positions/positionexit/?evidence__contains=%00", "positions/rulenote/?evidence__contains=x",
    "positions/trade/?id=abc", "positions/trade/?id__contained_by=x", "auth/user/?username__range=x",
]  # fmt: skip


@pytest.mark.parametrize("query", MEANINGLESS)
def test_a_filter_that_means_nothing_leads_to_the_whole_list(query: str, rows: Trade, owner_client: Client) -> None:
    """Whether one means something differs between the databases."""
    answer = owner_client.get(f"/admin/{query}")
    if answer.status_code != 200:
        assert (answer.status_code, answer.headers["Location"]) == (302, f"/admin/{query.split('?')[0]}?e=1")


def test_a_second_filter_that_means_nothing_is_no_mistake_of_ours(rows: Trade, owner_client: Client) -> None:
    for query in ("e=1&id=abc", "e=1&book__range=x"):
        page = owner_client.get(f"/admin/positions/trade/?{query}", follow=True)
        assert page.request["QUERY_STRING"] == "e=1"
        assert "That filter means nothing here: all rows are shown." in page.content.decode()
        assert owner_client.get(f"/admin/positions/trade/export/csv/?{query}").status_code == 400


@pytest.mark.parametrize("page", ["positions/trade", "django_q/success", "knox/authtoken", "auth/user"])
@pytest.mark.parametrize("key", ["%00", "9" * 300])
def test_a_row_whose_key_cannot_be_is_not_found(key: str, page: str, everything: None, owner_client: Client) -> None:
    assert owner_client.get(f"/admin/{page}/{key}/change/", follow=True).status_code in (200, 404)


@pytest.mark.parametrize("page", ["ml/mlmodel", "auth/user", "auth/group", "knox/authtoken"])
@pytest.mark.parametrize("chosen", ["a", "\x00", str(BEYOND)])
def test_an_action_on_rows_that_cannot_be_does_nothing(
    chosen: str, page: str, everything: None, owner_client: Client
) -> None:
    action = "compare" if page == "ml/mlmodel" else "delete_selected"
    model = apps.get_model(*page.split("/"))
    before = model.objects.count()
    answer = owner_client.post(f"/admin/{page}/", {"action": action, "_selected_action": [chosen], "index": "0"})
    assert answer.status_code in (200, 302)
    assert model.objects.count() == before


def test_a_list_that_fails_by_itself_is_a_mistake_of_ours(
    rows: Trade, owner_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kit.CappedPaginator, "found", property(lambda _: 1 // 0))
    for query in ("", "?e=1"):
        with pytest.raises(ZeroDivisionError):
            owner_client.get(f"/admin/positions/trade/{query}")


def test_the_books_to_choose_from_are_those_with_rows(rows: Trade) -> None:
    for book in ("paper:1", "replay:0123456789ab", "paper:1"):
        TradeFactory(book=book)
    assert kit.distinct(Trade, "book") == ["paper:1", "replay:0123456789ab", "simulated"]


def test_a_feature_page_shows_every_feature_with_its_unit_and_why_one_is_missing(
    rows: Trade, owner_client: Client
) -> None:
    page = owner_client.get(address(TradeFeatures, "change", TradeFeatures.objects.get().pk)).content.decode()
    for feature in FEATURES:
        assert f">{feature.name}</td>" in page
        assert f">{feature.unit or 'category'}</td>" in page
    assert "missing: no quote" in page


def test_a_trades_page_shows_how_its_plan_ended_beside_how_it_did(rows: Trade, owner_client: Client) -> None:
    early = TradeFactory(outcome="LOSS", exit_reason="time_limit", plan_outcome="WIN")
    page = owner_client.get(address(Trade, "change", early.pk)).content.decode()
    shown = page[page.index("Left to its plan") : page.index("What happened to it")]
    for words in ("WIN", "target", "1.9"):
        assert words in shown


def test_stored_json_is_shown_as_a_table_and_not_as_a_dump(rows: Trade, owner_client: Client) -> None:
    row = rows.exits.get()
    page = owner_client.get(address(type(row), "change", row.pk)).content.decode()
    assert ">volume</th>" in page
    assert "2,200.50" in page
    assert "2200.5" not in page
    assert "{&quot;" not in page


@pytest.mark.parametrize("model", OURS)
def test_no_field_is_explained_in_the_notation_of_json(model: type[Model]) -> None:
    assert [field.name for field in model._meta.fields if "{" in field.help_text] == []


def test_the_list_of_predictions_leaves_the_reason_to_the_page_of_each(rows: Trade, owner_client: Client) -> None:
    reason = "P(win) 0.346 below 0.513, where a trade of this plan pays"
    Prediction.objects.update(reason=reason)
    assert reason not in owner_client.get(address(Prediction)).content.decode()
    assert reason in owner_client.get(address(Prediction, "change", Prediction.objects.first().pk)).content.decode()


def test_what_is_stored_cannot_put_markup_into_a_page() -> None:
    assert "<script>" not in table({"<script>": [{"<script>": "<script>"}, {"b": ["<script>"]}]})


def test_a_model_page_never_loads_or_shows_the_artifact(
    rows: Trade, trained: MLModel, owner_client: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for page in (address(MLModel), address(MLModel, "change", trained.pk)):
        with django_assert_max_num_queries(20) as queries:
            assert HUGE_ARTIFACT not in owner_client.get(page).content.decode()
        assert not any('"artifact"' in query["sql"] for query in queries.captured_queries)


def test_predictions_do_not_load_the_artifact_of_their_model(
    rows: Trade, owner_client: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    with django_assert_max_num_queries(20) as queries:
        owner_client.get(address(Prediction))
    assert not any('"artifact"' in query["sql"] for query in queries.captured_queries)


def test_the_sector_of_an_instrument_can_be_changed_but_not_its_symbol(rows: Trade, owner_client: Client) -> None:
    row = Instrument.objects.get()
    owner_client.post(
        address(Instrument, "change", row.pk), {"symbol": "EVIL", "sector": "Energy", "sector_etf": "XLE"}
    )
    row.refresh_from_db()
    assert (row.symbol, row.sector, row.sector_etf, row.tradable) == ("AAPL", "Energy", "XLE", False)


def test_an_instrument_is_changed_only_by_those_who_may(rows: Trade, newcomer: User, newcomer_client: Client) -> None:
    permit(newcomer, "positions.view_instrument")
    row = Instrument.objects.get()
    assert newcomer_client.post(address(Instrument, "change", row.pk), {"sector": "Energy"}).status_code == 403


def test_the_watchlist_takes_symbols_in_small_letters_and_no_slip(owner_client: Client, settings: Any) -> None:
    settings.BOOK = "paper:first"
    add = address(Instrument, "add")
    assert owner_client.get(add).context["adminform"].form.initial["book"] == "paper:first"

    def refused(**given: str) -> list[str]:
        answer = owner_client.post(add, {"book": "paper:first", "symbol": "AAPL", **given})
        return [] if answer.status_code == 302 else list(answer.context["adminform"].form.errors)

    assert refused(symbol="brk.b", sector_etf="xlf") == []
    assert Instrument.objects.values_list("book", "symbol", "sector_etf").get() == ("paper:first", "BRK.B", "XLF")
    for slip in ("BRK B", "^SPY", "1AAPL", "É"):
        assert refused(symbol=slip) == ["symbol"]
    for slip in ("papr:first", "paper:", "simulated~3"):
        assert refused(book=slip) == ["book"]
    assert refused(sector_etf="XL F") == ["sector_etf"]
    assert refused(symbol="Brk.b") == ["__all__"]  # it is there
    assert Instrument.objects.count() == 1


@pytest.mark.parametrize("model", [Schedule, Success, Failure, OrmQ])
def test_nobody_can_make_the_queue_run_something_through_the_admin(model: type, owner_client: Client) -> None:
    assert owner_client.get(address(model)).status_code == 200
    assert owner_client.get(address(model, "add")).status_code == 403
    admin_class = admin.site._registry[model]
    request = owner_client.get(address(model)).wsgi_request
    assert not admin_class.has_change_permission(request)
    assert not admin_class.has_delete_permission(request)
    assert not admin_class.get_actions(request)


def test_a_schedule_cannot_be_pointed_at_another_function(owner_client: Client) -> None:
    row = Schedule.objects.create(name="x", func="tradingsite.schedules.monitors")
    assert owner_client.post(address(Schedule, "change", row.pk), {"func": "os.system"}).status_code == 403
    row.refresh_from_db()
    assert row.func == "tradingsite.schedules.monitors"


def test_a_live_setting_is_changed_in_the_admin_and_in_force_at_once(owner_client: Client) -> None:
    page = reverse("admin:constance_config_changelist")
    assert "low_volume: exit below this fraction" in owner_client.get(page).content.decode()
    change_on_the_page(owner_client, TIME_LIMIT_MINUTES=20.0)
    assert config.TIME_LIMIT_MINUTES == 20.0


def test_beside_each_live_setting_stand_its_unit_range_default_and_last_change(
    owner_client: Client, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    page = reverse("admin:constance_config_changelist")

    def beside() -> dict[str, list[str]]:
        found = re.findall(r'class="data-row.*?</tr>', owner_client.get(page).content.decode(), re.DOTALL)
        cells = [re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL) for row in found]
        words = [[" ".join(re.sub(r"<[^>]*>", " ", cell).split()) for cell in row] for row in cells]
        return {name.split()[0]: [*rest[1:3], rest[3].removesuffix(" refresh"), rest[4]] for name, *rest in words}

    shown = beside()
    assert set(shown) == set(settings.LIVE_SETTINGS)
    assert shown["RISK_PER_TRADE"] == ["fraction of equity", "0 to 0.05", "0.005", "–"]
    assert shown["TIME_LIMIT_MINUTES"] == ["minutes", "0.01 to 1000", "15", "–"]
    assert shown["PREDICTION_MODE"] == ["", "off, shadow, filter", "shadow", "–"]
    assert shown["AUTO_PROMOTE"] == ["", "", "off", "–"]

    for minutes in (20.0, 25.0):
        change_on_the_page(owner_client, TIME_LIMIT_MINUTES=minutes, PREDICTION_MODE="filter")
    for day, entry in enumerate(LogEntry.objects.order_by("pk"), start=3):
        LogEntry.objects.filter(pk=entry.pk).update(action_time=datetime(2024, 1, day, 16, tzinfo=UTC))
    shown = beside()
    assert shown["TIME_LIMIT_MINUTES"] == ["minutes", "0.01 to 1000", "15", "ada 2024-01-04 11:00:00 EST"]
    assert shown["PREDICTION_MODE"][-1] == "ada 2024-01-03 11:00:00 EST"
    assert shown["RISK_PER_TRADE"][-1] == "–"

    DriftCheck.objects.create(
        book="simulated", model=MLModelFactory(), checked_at=datetime(2024, 1, 5, 22, tzinfo=UTC), rows=0, sessions=0,
        errors=0, errors_before=0, stepped_down=True, reason="drift",
    )  # fmt: skip
    assert beside()["PREDICTION_MODE"][-1] == "check_drift 2024-01-05 17:00:00 EST"
    with django_assert_num_queries(1):
        assert len(last_changes()) == 2


def test_every_change_of_a_live_setting_is_told_with_what_it_was_and_became(owner_client: Client) -> None:
    history = reverse("admin:constance_config_history")
    assert "Nobody has changed a setting yet." in owner_client.get(history).content.decode()
    change_on_the_page(owner_client, TIME_LIMIT_MINUTES=20.0, PREDICTION_MODE="filter", LOW_VOLUME_EXIT=False)
    change_on_the_page(owner_client, TIME_LIMIT_MINUTES=20.0, PREDICTION_MODE="filter", LOW_VOLUME_EXIT=True)
    text = re.sub(r"<[^>]*>", " ", owner_client.get(history).content.decode())
    assert "LOW_VOLUME_EXIT: on to off; TIME_LIMIT_MINUTES: 15 to 20; PREDICTION_MODE: shadow to filter" in text
    assert text.index("LOW_VOLUME_EXIT: off to on") < text.index("LOW_VOLUME_EXIT: on to off")


@pytest.mark.django_db(transaction=True)
def test_of_two_who_save_settings_at_once_the_second_is_refused(owner: User, monkeypatch: pytest.MonkeyPatch) -> None:
    both, save = Barrier(2, timeout=1), ConstanceForm.save

    def together(form: ConstanceForm) -> list[str]:
        with suppress(BrokenBarrierError):
            both.wait()
        return save(form)

    monkeypatch.setattr(ConstanceForm, "save", together)
    clients = [Client(), Client()]
    for client in clients:
        client.force_login(owner)
    forms = [
        settings_form(client, **{name: 7})
        for client, name in zip(clients, ("MAX_OPEN_POSITIONS", "COOLDOWN_LOSSES"), strict=True)
    ]

    def post(client: Client, form: dict[str, Any]) -> int:
        try:
            return client.post(reverse("admin:constance_config_changelist"), form).status_code
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as threads:
        assert sorted(threads.map(post, clients, forms)) == [200, 302]
    assert [config.MAX_OPEN_POSITIONS, config.COOLDOWN_LOSSES].count(7) == 1


def test_who_may_see_or_change_settings_is_said_by_permissions(newcomer: User, newcomer_client: Client) -> None:
    page = reverse("admin:constance_config_changelist")
    assert newcomer_client.get(page).status_code == 403
    permit(newcomer, "constance.view_config")
    form = settings_form(newcomer_client, TIME_LIMIT_MINUTES=20.0)
    assert newcomer_client.post(page, form).status_code == 200
    assert config.TIME_LIMIT_MINUTES == 15.0
    permit(newcomer, "constance.change_config")
    assert newcomer_client.post(page, form).status_code == 302
    assert config.TIME_LIMIT_MINUTES == 20.0


@pytest.mark.parametrize(
    ("page", "shown"),
    [
        ("/admin/", "Dashboard"),
        ("/admin/constance/config/", "Live settings"),
        ("/admin/constance/config/history/", "Changes of settings"),
        ("/admin/ml/mlmodel/compare/", "Models"),
        ("/admin/ml/", None),
    ],
)
def test_the_side_bar_marks_the_page_that_is_shown_and_no_other(
    page: str, shown: str | None, owner: User, rf: RequestFactory
) -> None:
    request = rf.get(page)
    request.user = owner
    marked = [item["title"] for group in navigation(request) for item in group["items"] if item["active"]]
    assert marked == ([shown] if shown else [])


@pytest.mark.parametrize("page", ["constance_config_changelist", "django_q_schedule_changelist"])
def test_the_pages_of_other_packages_bear_our_names(page: str, owner_client: Client) -> None:
    html = owner_client.get(reverse(f"admin:{page}")).content.decode()
    assert "Constance" not in html
    assert "Django Q" not in html


def settings_form(client: Client, **changed: Any) -> dict[str, Any]:
    ContentType.objects.clear_cache()  # that of the settings was made, and taken back, by the test before
    page = client.get(reverse("admin:constance_config_changelist"))
    values = {**get_values(), **changed, "version": page.context["form"].initial["version"]}
    return {name: value for name, value in values.items() if value is not False}


def change_on_the_page(client: Client, **changed: Any) -> None:
    client.post(reverse("admin:constance_config_changelist"), settings_form(client, **changed))


def test_users_groups_and_tokens_are_in_the_sites_look(owner_client: Client) -> None:
    for page in ("auth_user_changelist", "auth_user_add", "auth_group_changelist", "knox_authtoken_changelist"):
        assert owner_client.get(reverse(f"admin:{page}")).status_code == 200


def test_the_errors_of_one_session_are_found_by_the_address_that_the_report_gives(
    rows: Trade, owner_client: Client
) -> None:
    other = ErrorNote.objects.get()
    ErrorNote.objects.create(
        book=other.book, session=other.session + timedelta(days=1), job="tick", error="ValueError", message="odd",
        count=1, first_at=other.last_at, last_at=other.last_at,
    )  # fmt: skip
    query = {"book": other.book, "session_from": str(other.session), "session_to": str(other.session)}
    assert owner_client.get(address(ErrorNote)).context["cl"].result_count == 2
    assert list(owner_client.get(address(ErrorNote), query).context["cl"].result_list) == [other]
