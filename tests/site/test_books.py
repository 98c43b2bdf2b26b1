"""Replacing a book: at once, by who holds the lease, and without touching what other books rest on."""

from datetime import timedelta

import pytest
from django.utils import timezone

from ml.model_trainer import ModelTrainer
from ml.models import MLModel, Prediction
from positions.leases import LeaseTaken
from positions.models import Trade, WorkerLease
from tests.factories import MLModelFactory, TradeFactory
from tests.ml.synthetic import store, training_data
from tradingsite import books

pytestmark = pytest.mark.django_db


def replace_with(book: str, trades: int) -> None:
    with books.held(book) as lease, books.rewritten(book, lease) as draft:
        TradeFactory.create_batch(trades, book=draft)


def test_a_book_is_what_the_last_run_wrote_and_nothing_else():
    replace_with("simulated", 3)
    TradeFactory(book="paper:x")
    replace_with("simulated", 2)
    assert Trade.objects.filter(book="simulated").count() == 2
    assert Trade.objects.count() == 3


def test_a_run_that_was_overtaken_is_thrown_away_and_the_other_s_stands():
    def slow() -> None:
        with books.held("simulated") as lease, books.rewritten("simulated", lease) as draft:
            TradeFactory.create_batch(5, book=draft)
            WorkerLease.objects.update(expires_at=timezone.now() - timedelta(seconds=1))  # it slept too long
            replace_with("simulated", 2)

    with pytest.raises(LeaseTaken):
        slow()
    assert list(Trade.objects.values_list("book", flat=True)) == ["simulated"] * 2


def test_what_a_killed_run_left_is_removed_by_the_next():
    WorkerLease.objects.create(
        book="simulated",
        name="replay",
        holder="elsewhere:1",
        epoch=7,
        acquired_at=timezone.now(),
        heartbeat_at=timezone.now(),
        expires_at=timezone.now() - timedelta(seconds=1),
    )
    TradeFactory.create_batch(4, book="simulated~7")
    replace_with("simulated", 1)
    assert list(Trade.objects.values_list("book", flat=True)) == ["simulated"]


def test_models_that_serve_or_spoke_elsewhere_outlive_their_book():
    unused = MLModelFactory(book="simulated")
    promoted = MLModelFactory(book="simulated", champion=True)
    shadow = MLModelFactory(book="simulated")
    Prediction.objects.create(
        book="paper:x",
        signal_key="KO",
        model=shadow,
        mode="shadow",
        p_raw=0.5,
        p_win=0.5,
        p_geometry=0.5,
        decision="skip",
        latency_us=1.0,
        predicted_at=timezone.now(),
    )
    replace_with("simulated", 1)
    assert set(MLModel.objects.all()) == {promoted, shadow}
    assert unused not in MLModel.objects.all()
    assert Prediction.objects.count() == 1


def test_a_rerun_does_not_collide_with_a_model_that_outlived_its_book():
    store(training_data(1, sessions=20, per_session=20), "simulated")
    first = ModelTrainer("simulated").train().model
    assert first is not None
    MLModel.objects.filter(pk=first.pk).update(promoted_at=timezone.now())
    with books.held("simulated") as lease, books.rewritten("simulated", lease) as draft:
        store(training_data(1, sessions=20, per_session=20), draft)
        ModelTrainer(draft).train()
    assert MLModel.objects.filter(book="simulated").count() == 2
    assert len(set(MLModel.objects.values_list("version", flat=True))) == 2
