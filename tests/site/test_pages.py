"""The pages of a trade and of a model, and the change of who serves a book."""

import re
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from pytest_django import DjangoAssertNumQueries

from ml.models import MLModel, Prediction
from ml.registry import champion, promote
from ml.words import Gate
from positions.market.calendar import NEW_YORK
from positions.market.feeds.simulated import SimulatedMarket
from positions.models import Trade
from tests.factories import MLModelFactory, TradeFactory, features_of
from tests.runs import run
from tests.site.conftest import fill_tables, make_session, permit


def address(page: str, *args: object) -> str:
    return reverse(f"admin:{page}", args=args)


def text(client: Client, where: str) -> str:
    return " ".join(client.get(where).content.decode().split())


def str_of(trade: Trade) -> str:
    """When it was left, as figures have it."""
    assert trade.exited_at is not None
    return trade.exited_at.astimezone(NEW_YORK).replace(tzinfo=None).isoformat()


class TestTrade:
    def test_it_says_what_was_known_and_what_the_model_said(self, rows: Trade, owner_client: Client) -> None:
        Prediction.objects.update(contributions=[{"feature": "rsi14", "value": 61.5, "log_odds": 0.12}])
        page = text(owner_client, address("positions_trade_change", rows.pk))
        assert "What moved model" in page
        assert "= 61.5" in page  # in the figure
        assert "missing: no quote" in page

    def test_what_happened_is_told_in_order(self, rows: Trade, owner_client: Client) -> None:
        page = text(owner_client, address("positions_trade_change", rows.pk))
        told = page[page.index("What happened, in order") :]
        steps = ["Signal of", "Order written: entry", "Closed by"]
        places = [told.index(step) for step in steps]
        assert places == sorted(places)

    def test_without_stored_bars_it_says_so_and_draws_none(self, rows: Trade, owner_client: Client) -> None:
        page = text(owner_client, address("positions_trade_change", rows.pk))
        assert "The bars of this session are not stored here" in page

    def test_who_may_not_see_predictions_sees_none(self, rows: Trade, newcomer: User, newcomer_client: Client) -> None:
        permit(newcomer, "positions.view_trade")
        page = text(newcomer_client, address("positions_trade_change", rows.pk))
        assert "What happened, in order" in page
        assert "Rule stop had come 93% of its way, and did not act" in page
        assert "What the model said" not in page
        assert "What was known at the signal" not in page

    def test_the_most_similar_trades_had_closed_before_its_signal(self, trained: MLModel, owner_client: Client) -> None:
        late = TradeFactory(symbol="LATE")
        trade = TradeFactory(symbol="MINE", signal_at=late.exited_at - timedelta(seconds=1))
        early = TradeFactory(symbol="EARLY", signal_at=late.signal_at - timedelta(hours=1))
        for each in (late, trade, early):
            features_of(each)
        page = text(owner_client, address("positions_trade_change", trade.pk))
        alike = page[page.index("The most similar trades") : page.index("What was known at the signal")]
        assert "EARLY" in alike
        assert "LATE" not in alike

    def test_a_trade_whose_features_were_lost_is_like_no_other_for_that_reason(
        self, trained: MLModel, owner_client: Client
    ) -> None:
        early = TradeFactory(symbol="EARLY")
        features_of(early)
        lost = TradeFactory(signal_at=early.signal_at + timedelta(hours=3))
        page = text(owner_client, address("positions_trade_change", lost.pk))
        assert "No similar trade had closed before this signal." not in page
        assert "No features were stored for this signal, so no other can be compared with it." in page
        assert "No similar trade had closed before this signal." in text(
            owner_client, address("positions_trade_change", early.pk)
        )

    def test_a_replayed_trade_is_drawn_on_the_bars_that_were_kept_for_it(self, owner_client: Client) -> None:
        run(SimulatedMarket(seed=5, sessions=2))
        trade = Trade.objects.filter(status="closed").first()
        assert trade is not None
        page = owner_client.get(address("positions_trade_change", trade.pk))
        candles, *_ = page.context["figures"]["candles"]["data"]
        assert len(candles["x"]) > 10
        at_exit = [
            bar for bar in zip(candles["x"], candles["low"], candles["high"], strict=True) if bar[0] <= str_of(trade)
        ]
        assert at_exit[-1][1] <= float(trade.exit_price) <= at_exit[-1][2]

    def test_an_open_trade_is_drawn_until_now(self, owner_client: Client) -> None:
        run(SimulatedMarket(seed=5, sessions=2))
        early = Trade.objects.order_by("signal_at")[0]
        at = early.signal_at + timedelta(minutes=1)
        still_open = TradeFactory(symbol=early.symbol, book=early.book, signal_at=at, still_open=True)
        page = owner_client.get(address("positions_trade_change", still_open.pk))
        candles, _, stop, *_ = page.context["figures"]["candles"]["data"]
        assert datetime.fromisoformat(candles["x"][-1]) - datetime.fromisoformat(stop["x"][0]) > timedelta(hours=2)
        assert stop["x"] == sorted(stop["x"])
        assert datetime.fromisoformat(stop["x"][-1]) - datetime.fromisoformat(stop["x"][0]) < timedelta(hours=6.6)

    def test_it_takes_as_many_queries_after_ten_trades_as_after_one(
        self, rows: Trade, owner_client: Client, django_assert_max_num_queries: DjangoAssertNumQueries
    ) -> None:
        before = TradeFactory(signal_at=rows.signal_at - timedelta(hours=1))
        fill_tables(before, MLModel.objects.get())
        where = address("positions_trade_change", rows.pk)
        owner_client.get(where)
        with django_assert_max_num_queries(28) as few:
            owner_client.get(where)
        for _ in range(10):
            fill_tables(TradeFactory(), MLModel.objects.get())
        with django_assert_max_num_queries(len(few.captured_queries)):
            owner_client.get(where)


@pytest.fixture
def passed(db: None) -> MLModel:
    return MLModelFactory(gate=Gate.PASS, book="simulated", metrics={"n": 450, "sessions": 30, "auc": 0.61})


class TestModel:
    def test_a_model_stored_without_figures_says_how_to_get_some(self, trained: MLModel, owner_client: Client) -> None:
        page = text(owner_client, address("ml_mlmodel_change", trained.pk))
        assert "This model was stored without baselines. Train a new one" in page

    def test_its_word_on_live_signals_is_shown_on_both_sides(self, trained: MLModel, owner_client: Client) -> None:
        where = address("ml_mlmodel_change", trained.pk)
        assert "What its word on live signals is worth is not known" in text(owner_client, where)
        side = {"model": trained.pk, "n": 10, "won": 4, "r": 1.5, "p_geometry": 3.0}
        judged = [{**side, "refused": False}, {**side, "refused": True}]
        make_session("simulated", trained.test_to + timedelta(days=1), judged=judged)
        page = owner_client.get(where)
        assert "let through: won" in page.content.decode()
        assert page.context["figures"]["live"]["data"][0]["x"] == [0.15, 0.15]

    def test_two_models_stand_side_by_side(self, trained: MLModel, passed: MLModel, owner_client: Client) -> None:
        page = text(owner_client, f"{address('ml_mlmodel_compare')}?one={trained.pk}&other={passed.pk}")
        assert trained.version in page
        assert passed.version in page
        assert "0.523" in page
        assert "0.610" in page

    @pytest.mark.parametrize("query", ["", "?one=1", "?one=x&other=y", "?one=999&other=998", "?one=" + "9" * 5000])
    def test_a_comparison_with_no_such_model_is_not_found(self, query: str, owner_client: Client) -> None:
        assert owner_client.get(f"{address('ml_mlmodel_compare')}{query}").status_code == 404

    def test_the_action_compares_exactly_two(self, trained: MLModel, passed: MLModel, owner_client: Client) -> None:
        def chosen(*keys: int) -> Any:
            given = {"action": "compare", "_selected_action": [*map(str, keys)]}
            return owner_client.post(address("ml_mlmodel_changelist"), given)

        answer = chosen(trained.pk, passed.pk)
        assert re.search(r"compare/\?one=\d+&other=\d+$", answer["Location"])
        assert "compare" not in chosen(trained.pk).get("Location", "")


class TestPromotion:
    def test_it_is_confirmed_with_a_reason_and_logged(self, passed: MLModel, owner_client: Client) -> None:
        where = address("ml_mlmodel_promote", passed.pk)
        assert "No model serves that book now." in text(owner_client, where)
        assert champion("simulated") is None  # looking changes nothing
        owner_client.post(where, {"why": "beats geometry"})
        serving = champion("simulated")
        assert serving == passed
        assert (serving.promoted_by, serving.promotion_reason) == ("ada", "beats geometry")
        assert "beats geometry" in LogEntry.objects.get().change_message

    def test_a_character_that_no_text_has_is_left_out_of_the_reason(
        self, passed: MLModel, owner_client: Client
    ) -> None:
        owner_client.post(address("ml_mlmodel_promote", passed.pk), {"why": "beats\x00 geometry"})
        serving = champion("simulated")
        assert serving is not None
        assert serving.promotion_reason == "beats geometry"

    @pytest.mark.parametrize("shown", ["9" * 5000, "x", "0"])
    def test_a_champion_that_cannot_have_been_shown_is_none(
        self, shown: str, passed: MLModel, owner_client: Client
    ) -> None:
        owner_client.post(address("ml_mlmodel_promote", passed.pk), {"why": "beats geometry", "serving": shown})
        assert champion("simulated") == passed

    def test_without_a_reason_nothing_changes_and_it_says_why(self, passed: MLModel, owner_client: Client) -> None:
        answer = owner_client.post(address("ml_mlmodel_promote", passed.pk), {"why": " "}, follow=True)
        assert "A promotion needs a name and a reason." in answer.content.decode()
        assert champion("simulated") is None
        assert not LogEntry.objects.exists()

    def test_a_model_that_did_not_pass_its_gate_is_refused_in_words(self, owner_client: Client) -> None:
        refused = MLModelFactory(gate=Gate.FAIL, gate_reasons=["No skill."])
        answer = owner_client.post(address("ml_mlmodel_promote", refused.pk), {"why": "hope"}, follow=True)
        assert "did not pass its gate (FAIL): No skill." in answer.content.decode()
        assert champion(refused.book) is None

    def test_rolling_back_brings_the_one_before_back(self, passed: MLModel, owner_client: Client) -> None:
        newer = MLModelFactory(gate=Gate.PASS, book="simulated", metrics={"n": 450, "sessions": 30, "auc": 0.62})
        promote(passed, "simulated", "ada", "first")
        promote(newer, "simulated", "ada", "second")
        page = text(owner_client, address("ml_mlmodel_promote", MLModelFactory(gate=Gate.PASS, book="simulated").pk))
        assert f"Model {newer.version} serves that book now and would be archived." in page
        back = address("ml_mlmodel_rollback", newer.pk)
        assert f"model {passed.version}, which it had replaced, serves again." in text(owner_client, back)
        assert owner_client.get(back).context["pair"]["versions"] == [passed.version, newer.version]
        owner_client.post(back, {"why": "it skips winners"})
        assert champion("simulated") == passed

    def test_a_promotion_is_what_was_confirmed_or_refused(self, owner_client: Client) -> None:
        first, other, chosen = (MLModelFactory(gate=Gate.PASS, book="simulated") for _ in range(3))
        where = address("ml_mlmodel_promote", chosen.pk)

        def shown() -> dict[str, str]:
            return dict(re.findall(r'name="(serving)" value="(\d+)"', owner_client.get(where).content.decode()))

        for comes in (first, other):  # where none served, and where another did
            confirmed = {**shown(), "why": "better"}
            promote(comes, "simulated", "automatic", "its trial is over")
            answer = owner_client.post(where, confirmed, follow=True)
            assert f"Model {comes.version} serves simulated since you looked; look again." in answer.content.decode()
            assert champion("simulated") == comes
        owner_client.post(where, {**shown(), "why": "better"})
        assert champion("simulated") == chosen

    def test_a_rollback_is_what_was_confirmed_or_refused(self, passed: MLModel, owner_client: Client) -> None:
        shown, other = (MLModelFactory(gate=Gate.PASS, book="simulated") for _ in range(2))
        for model in (passed, shown, other):
            promote(model, "simulated", "ada", "better")
        answer = owner_client.post(address("ml_mlmodel_rollback", shown.pk), {"why": "worse"}, follow=True)
        assert f"Model {other.version} serves simulated since you looked; look again." in answer.content.decode()
        assert champion("simulated") == other

    def test_of_the_first_champion_it_is_said_that_none_would_serve_again(
        self, passed: MLModel, owner_client: Client
    ) -> None:
        promote(passed, "simulated", "ada", "first")
        assert "there is none to serve again" in text(owner_client, address("ml_mlmodel_rollback", passed.pk))

    def test_what_serves_nothing_cannot_be_rolled_back(self, passed: MLModel, owner_client: Client) -> None:
        assert owner_client.get(address("ml_mlmodel_rollback", passed.pk)).status_code == 404

    @pytest.mark.parametrize("page", ["ml_mlmodel_promote", "ml_mlmodel_rollback"])
    def test_who_may_only_look_cannot(
        self, page: str, passed: MLModel, newcomer: User, newcomer_client: Client
    ) -> None:
        permit(newcomer, "ml.view_mlmodel")
        for answer in (newcomer_client.get(address(page, passed.pk)), newcomer_client.post(address(page, passed.pk))):
            assert answer.status_code == 403
        assert champion("simulated") is None
