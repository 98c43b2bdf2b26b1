"""Promotion, override and rollback: by somebody, for a reason, one champion a book, and nothing from an invented market
by accident."""

import threading
from datetime import timedelta

import pytest
from django.db import IntegrityError, connection
from django.utils import timezone

from ml.models import MLModel
from ml.registry import PromotionRefused, champion, promote, rollback
from ml.words import Gate, ModelStatus
from tests.factories import MLModelFactory


@pytest.mark.django_db
def test_a_book_without_a_champion_has_none():
    MLModelFactory()
    MLModelFactory(book="paper:1", champion=True)
    assert champion("simulated") is None


@pytest.mark.django_db
def test_a_promoted_candidate_serves_and_the_one_before_is_archived():
    old, new = MLModelFactory(champion=True), MLModelFactory()
    promote(new, "simulated", "ada", "better on every window")
    old.refresh_from_db()
    assert champion("simulated") == new
    stored = champion("simulated")
    assert (stored.promoted_by, stored.promotion_reason) == ("ada", "better on every window")
    assert stored.promoted_at is not None
    assert (old.status, old.serving_book) == (ModelStatus.ARCHIVED, "simulated")
    assert (old.archived_by, old.archive_reason) == (
        "ada",
        f"{new.version} was promoted: better on every window",
    )
    assert old.archived_at == stored.promoted_at


@pytest.mark.django_db
def test_a_promotion_leaves_the_champions_of_other_books_alone():
    other = MLModelFactory(book="paper:1", champion=True)
    promote(MLModelFactory(), "simulated", "ada", "first")
    assert champion("paper:1") == other


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"gate": Gate.FAIL, "gate_reasons": ["AUC is 0.510."]}, r"did not pass its gate \(FAIL\): AUC is 0.510\."),
        ({"gate": Gate.INSUFFICIENT_DATA}, "INSUFFICIENT_DATA"),
        ({"status": ModelStatus.ARCHIVED, "serving_book": "simulated"}, "only a candidate can be promoted"),
        ({"champion": True}, "already serves simulated"),
        ({"feature_set": "an older one"}, "Train a new one"),
    ],
)
def test_a_model_that_must_not_serve_is_refused_and_the_champion_stays(fields, message):
    model = MLModelFactory(**fields)
    before = champion("simulated")
    with pytest.raises(PromotionRefused, match=message):
        promote(model, "simulated", "ada", "I like it")
    assert champion("simulated") == before


@pytest.mark.django_db
@pytest.mark.parametrize("trained_on", ["simulated", "replay:0123abcd", "paper:2"])
@pytest.mark.parametrize("serving", ["paper:1", "live:1"])
def test_a_model_of_another_book_serves_only_by_a_promotion_that_says_so(trained_on, serving):
    model = MLModelFactory(book=trained_on)
    with pytest.raises(PromotionRefused, match=f"trained on book {trained_on}, not on {serving}"):
        promote(model, serving, "ada", "looks good")
    assert champion(serving) is None
    promote(model, serving, "ada", "looks good", foreign=True)
    assert champion(serving) == model


@pytest.mark.django_db
@pytest.mark.parametrize(("who", "why"), [("", "reason"), ("ada", "  "), ("a" * 151, "reason"), ("ada", "r" * 301)])
def test_a_promotion_needs_a_name_and_a_reason_that_fit(who, why):
    with pytest.raises(PromotionRefused, match=r"name"):
        promote(MLModelFactory(), "simulated", who, why)


@pytest.mark.django_db
class TestOverride:
    @pytest.mark.parametrize("verdict", [Gate.FAIL, Gate.INSUFFICIENT_DATA])
    def test_a_model_that_did_not_pass_serves_until_a_named_day_and_never_filters(self, verdict):
        model, until = MLModelFactory(gate=verdict), timezone.now() + timedelta(days=3)
        promote(model, "simulated", "ada", "to see it at work", override_until=until)
        served = champion("simulated")
        assert (served, served.override_until, served.may_filter) == (model, until, False)
        assert (served.override_ended(until - timedelta(seconds=1)), served.override_ended(until)) == (False, True)

    @pytest.mark.parametrize(
        ("fields", "days", "message"),
        [
            ({"gate": Gate.PASS}, 3, "needs no override"),
            ({"gate": Gate.FAIL}, 0, "would have ended"),
            ({"gate": Gate.FAIL, "feature_set": "an older one"}, 3, "Train a new one"),
            ({"gate": Gate.FAIL, "book": "paper:1"}, 3, "--foreign"),
        ],
    )
    def test_what_an_override_cannot_cover_is_refused(self, fields, days, message):
        model = MLModelFactory(**fields)
        with pytest.raises(PromotionRefused, match=message):
            promote(model, "simulated", "ada", "I like it", override_until=timezone.now() + timedelta(days=days))
        assert champion("simulated") is None

    @pytest.mark.parametrize(
        "fields",
        [
            {"gate": Gate.FAIL, "champion": True},
            {"gate": Gate.PASS, "override_until": timezone.now()},
            {"gate": Gate.FAIL, "may_filter": True},
            {"serving_book": "simulated"},
            {"status": ModelStatus.ARCHIVED},
        ],
    )
    def test_the_database_itself_refuses_what_no_promotion_gives(self, fields):
        with pytest.raises(IntegrityError, match="model_"):
            MLModelFactory(**fields)


@pytest.mark.django_db
class TestRollback:
    def promoted(self, **fields):
        model = MLModelFactory(**fields)
        until = timezone.now() + timedelta(days=1) if model.gate != Gate.PASS else None
        return promote(model, "simulated", "ada", "better", override_until=until)

    def test_the_champion_before_serves_again_and_who_when_and_why_stand_on_the_one_withdrawn(self):
        first, second = self.promoted(), self.promoted()
        promoted_at = first.promoted_at
        done = rollback("simulated", "bob", "it skips winners")
        assert (done.withdrawn, done.restored, champion("simulated")) == (second, first, first)
        second.refresh_from_db()
        assert (second.status, second.archived_by) == (ModelStatus.ARCHIVED, "bob")
        assert second.archive_reason == f"rolled back to {first.version}: it skips winners"
        assert second.archived_at is not None
        restored = champion("simulated")
        assert (restored.promoted_by, restored.promoted_at, restored.archived_at) == ("ada", promoted_at, None)

    def test_twice_goes_back_twice_and_never_to_what_was_withdrawn(self):
        first, second, _withdrawn = self.promoted(), self.promoted(), self.promoted()
        rollback("simulated", "bob", "worse")
        third = self.promoted()
        assert champion("simulated") == third
        assert [rollback("simulated", "bob", "worse").restored for _ in range(2)] == [second, first]
        with pytest.raises(PromotionRefused, match="No model served simulated before"):
            rollback("simulated", "bob", "worse")
        assert champion("simulated") == first

    def test_another_champion_than_the_one_that_was_seen_is_not_withdrawn(self):
        first, second = self.promoted(), self.promoted()
        with pytest.raises(
            PromotionRefused, match=f"Model {second.version} serves simulated since you looked; look again."
        ):
            rollback("simulated", "bob", "worse", seen=first.pk)
        assert rollback("simulated", "bob", "worse", seen=second.pk).restored == first

    def test_where_no_model_serves_there_is_nothing_to_roll_back(self):
        MLModelFactory(book="paper:1", champion=True)
        with pytest.raises(PromotionRefused, match="No model serves simulated"):
            rollback("simulated", "bob", "worse")

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"feature_set": "an older one"}, "another feature set"),
            ({"gate": Gate.FAIL, "override_until": timezone.now()}, "has ended"),
        ],
    )
    def test_a_champion_before_that_may_not_serve_any_more_does_not(self, changed, message):
        first, second = self.promoted(), self.promoted()
        MLModel.objects.filter(pk=first.pk).update(**changed)
        with pytest.raises(PromotionRefused, match=message):
            rollback("simulated", "bob", "worse")
        assert champion("simulated") == second

    def test_a_rollback_needs_a_name_and_a_reason(self):
        self.promoted(), self.promoted()
        with pytest.raises(PromotionRefused, match="A rollback needs a name"):
            rollback("simulated", "bob", " ")


@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has one writer at a time; this race is PostgreSQL's")
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("with_champion", [True, False])
def test_of_two_promotions_at_once_exactly_one_serves(with_champion):
    if with_champion:
        MLModelFactory(champion=True)
    candidates = [MLModelFactory(), MLModelFactory()]
    start, refused = threading.Barrier(2), []

    def run(model):
        start.wait()
        try:
            promote(model, "simulated", "ada", "now")
        except PromotionRefused as refusal:
            refused.append(str(refusal))
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=[model]) for model in candidates]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert MLModel.objects.filter(status=ModelStatus.CHAMPION, serving_book="simulated").count() == 1
    assert all("at the same moment" in refusal for refusal in refused)
    archived = MLModel.objects.filter(status=ModelStatus.ARCHIVED, pk__in=[model.pk for model in candidates]).count()
    assert archived + len(refused) == 1
