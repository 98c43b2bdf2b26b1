"""Promotion: by somebody, for a reason, one champion a book, and nothing from an invented market by accident."""

import threading

import pytest
from django.db import connection

from ml.models import MLModel
from ml.registry import PromotionRefused, champion, promote
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
