import csv
import io
from decimal import Decimal

import pyarrow.parquet as pq
import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from ml.models import MLModel
from positions.models import Trade
from tests.factories import TradeFactory
from tests.site.conftest import HUGE_ARTIFACT
from tests.site.test_admin import LOOKED_AT
from tradingsite.kit import export
from tradingsite.kit.admin import RecordAdmin

EXPORTED = [model for model in LOOKED_AT if isinstance(admin.site._registry[model], RecordAdmin)]


def exported(client: Client, model: type, form: str, query: str = "") -> bytes:
    where = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_export", args=[form])
    answer = client.get(f"{where}{query}")
    assert answer.status_code == 200
    return b"".join(answer.streaming_content)


def lines(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode(), newline="")))


@pytest.mark.parametrize("model", EXPORTED)
def test_both_forms_hold_every_row_of_every_table(model: type, rows: Trade, owner_client: Client) -> None:
    expected = model.objects.count()
    assert len(lines(exported(owner_client, model, "csv"))) == expected
    assert pq.read_table(io.BytesIO(exported(owner_client, model, "parquet"))).num_rows == expected


def test_money_is_exact_and_times_keep_their_zone(rows: Trade, owner_client: Client) -> None:
    (line,) = lines(exported(owner_client, Trade, "csv"))
    (row,) = pq.read_table(io.BytesIO(exported(owner_client, Trade, "parquet"))).to_pylist()
    rows.refresh_from_db()
    assert Decimal(line["entry_price"]) == row["entry_price"] == rows.entry_price
    assert line["signal_at"] == rows.signal_at.isoformat()
    assert row["signal_at"] == rows.signal_at


@pytest.mark.parametrize("formula", ['=HYPERLINK("http://evil")', "+1", "-1", "@SUM(A1)", "\t=1"])
def test_what_a_program_wrote_is_no_formula_in_a_spreadsheet(formula: str, rows: Trade, owner_client: Client) -> None:
    Trade.objects.update(strategy=formula)
    (line,) = lines(exported(owner_client, Trade, "csv"))
    (row,) = pq.read_table(io.BytesIO(exported(owner_client, Trade, "parquet"))).to_pylist()
    assert line["strategy"] == f"'{formula}"
    assert row["strategy"] == formula
    assert Decimal(line["pnl"]) == row["pnl"]


@pytest.mark.parametrize("query", ["id__exact=abc", "quantity__exact=zz", "book__range=x", "id__contained_by=1"])
def test_a_filter_that_no_row_could_meet_is_the_askers_mistake(query: str, rows: Trade, owner_client: Client) -> None:
    assert owner_client.get(f"/admin/positions/trade/export/csv/?{query}").status_code == 400


def test_the_filters_and_the_search_of_the_list_hold_for_the_file_but_its_pages_do_not(
    rows: Trade, owner_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "AT_ONCE", 7)
    for _ in range(60):
        TradeFactory(book="paper:1")
    assert len(lines(exported(owner_client, Trade, "csv", "?book=paper%3A1"))) == 60
    assert pq.read_table(io.BytesIO(exported(owner_client, Trade, "parquet", "?book=paper%3A1"))).num_rows == 60
    assert len(lines(exported(owner_client, Trade, "csv", "?q=aapl"))) == 1


def test_no_row_is_a_file_with_a_head_and_nothing_more(owner_client: Client) -> None:
    assert exported(owner_client, Trade, "csv").decode().startswith("id,book,")
    assert pq.read_table(io.BytesIO(exported(owner_client, Trade, "parquet"))).num_rows == 0


def test_a_models_artifact_stays(trained: MLModel, owner_client: Client) -> None:
    assert HUGE_ARTIFACT.encode() not in exported(owner_client, MLModel, "csv")


def test_only_who_may_look_may_export(rows: Trade, newcomer: User, newcomer_client: Client) -> None:
    assert newcomer_client.get(reverse("admin:positions_trade_export", args=["csv"])).status_code == 403


def test_another_form_is_not_found(rows: Trade, owner_client: Client) -> None:
    assert owner_client.get(reverse("admin:positions_trade_export", args=["xlsx"])).status_code == 404
