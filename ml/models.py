"""What is stored about learning. The columns of `ml_trade_features` follow from the registry in ml/features.py."""

from datetime import date, datetime, timedelta
from typing import Any

from django.db import models
from django.db.models import Q
from django.utils import timezone

from ml.features import FEATURES, Feature, Kind
from ml.words import Algorithm, Decision, Gate, Label, ModelStatus, PredictionMode, tested_on, trained_on
from positions.models import allowed, book_field, money_field, word_field
from positions.words import Feed, Outcome, Side


class TradeFeatures(models.Model):
    """What the market looked like at a signal, taken or not: one typed column a feature, null with a reason."""

    book = book_field()
    signal_key = models.CharField(max_length=64)
    symbol = models.CharField(max_length=16)
    session = models.DateField()
    signal_at = models.DateTimeField()
    feed = word_field(Feed)
    feature_set = models.CharField(max_length=16)
    bars_used = models.PositiveIntegerField(help_text="bars of history behind the indicators")
    complete = models.BooleanField(help_text="no null but those that a first trade or a missing quote explains")
    missing = models.JSONField(default=dict, help_text="why each feature that is null is so")
    taken = models.BooleanField(help_text="whether an entry order was sent on the signal")
    not_taken_reason = models.CharField(max_length=64, blank=True)

    class Meta:
        db_table = "ml_trade_features"
        ordering = ["-signal_at", "-id"]
        verbose_name_plural = "trade features"
        constraints = [
            models.UniqueConstraint(fields=["book", "signal_key"], name="features_once_a_signal"),
            allowed("side", Side, "features_side"),
        ]
        indexes = [
            models.Index(fields=["book", "-signal_at", "-id"], name="features_newest_of_a_book"),
            models.Index(fields=["-signal_at", "-id"], name="features_newest"),
            models.Index(fields=["book", "session"], name="features_of_a_session"),
            models.Index(fields=["symbol", "-signal_at"], name="features_of_a_symbol"),
            models.Index(fields=["-signal_at", "-id"], condition=Q(taken=False), name="features_not_taken"),
        ]

    def __str__(self) -> str:
        return self.signal_key


def _column(feature: Feature) -> "models.Field[Any, Any]":
    help_text = feature.unit
    if feature.kind is Kind.CATEGORICAL:
        return models.CharField(max_length=16, null=True, choices=[(c, c) for c in feature.categories])
    return models.FloatField(null=True, help_text=help_text)


for _feature in FEATURES:
    TradeFeatures.add_to_class(_feature.name, _column(_feature))


class MLModel(models.Model):
    """A trained model: its artifact (base64, signed), what it was trained on, how it did, and where it serves.

    `book` is where it was trained. A champion serves `serving_book`; a model trained on an invented market serves a
    real account only by a promotion that names it.
    """

    book = book_field()
    version = models.CharField(max_length=64)
    algorithm = word_field(Algorithm, default=Algorithm.XGBOOST)
    label = word_field(Label, default=Label.NET)
    status = word_field(ModelStatus, default=ModelStatus.CANDIDATE)
    gate = word_field(Gate)
    gate_reasons = models.JSONField(default=list)
    may_filter = models.BooleanField(default=False)
    feature_set = models.CharField(max_length=16)
    artifact = models.TextField(help_text="base64 of the signed pickle")
    artifact_sha256 = models.CharField(max_length=64)
    data_hash = models.CharField(max_length=64)
    seed = models.PositiveIntegerField(help_text="number that its random draws began with")
    n_train = models.PositiveIntegerField("trained on", help_text="trades")
    n_validation = models.PositiveIntegerField("validated on", help_text="trades")
    n_test = models.PositiveIntegerField("tested on", help_text="trades")
    tested_from = models.DateField(help_text="first session of all test windows")
    test_from = models.DateField(help_text="first session of the last test window, which this very model never saw")
    test_to = models.DateField()
    threshold = models.FloatField(null=True, help_text="P(win) above which a trade of the mean plan pays")
    metrics = models.JSONField(help_text="pooled out-of-sample figures with intervals and baselines")
    folds = models.JSONField(help_text="the same, a window each")
    importance = models.JSONField(
        help_text="by column: mean gain of its splits, mean size of its contribution (SHAP), and a sample of these"
    )
    manifest = models.JSONField(help_text="parameters, fold boundaries, library versions: what retraining needs")
    created_at = models.DateTimeField()
    serving_book = models.CharField(max_length=64, null=True, help_text="the book it serves; once archived, it served")
    promoted_at = models.DateTimeField(null=True)
    promoted_by = models.CharField(max_length=150, blank=True)
    promotion_reason = models.CharField(max_length=300, blank=True)
    override_until = models.DateTimeField(null=True, help_text="it serves without having passed its gate, until then")
    archived_at = models.DateTimeField(null=True)
    archived_by = models.CharField(max_length=150, blank=True)
    archive_reason = models.CharField(max_length=300, blank=True)

    class Meta:
        db_table = "ml_models"
        ordering = ["-created_at", "-id"]
        verbose_name = "model"
        constraints = [
            models.UniqueConstraint(fields=["book", "version"], name="model_version_once_a_book"),
            models.UniqueConstraint(
                fields=["serving_book"], condition=Q(status=ModelStatus.CHAMPION), name="model_one_champion_a_book"
            ),
            models.CheckConstraint(
                condition=Q(status=ModelStatus.CANDIDATE, serving_book__isnull=True)
                | (~Q(status=ModelStatus.CANDIDATE) & Q(serving_book__isnull=False)),
                name="model_serves_once_promoted",
            ),
            models.CheckConstraint(
                condition=~Q(status=ModelStatus.CHAMPION) | Q(gate=Gate.PASS) | Q(override_until__isnull=False),
                name="model_serves_by_gate_or_override",
            ),
            models.CheckConstraint(
                condition=~Q(gate=Gate.PASS) | Q(override_until__isnull=True), name="model_override_of_a_refusal"
            ),
            models.CheckConstraint(
                condition=Q(may_filter=False) | Q(gate=Gate.PASS), name="model_filters_past_its_gate"
            ),
            allowed("status", ModelStatus, "model_status"),
            allowed("gate", Gate, "model_gate"),
            allowed("algorithm", Algorithm, "model_algorithm"),
            allowed("label", Label, "model_label"),
        ]
        indexes = [models.Index(fields=["-created_at", "-id"], name="model_newest")]

    def __str__(self) -> str:
        return f"{self.book} {self.version}"

    @property
    def trained_on(self) -> str:
        return trained_on(self.n_train, len(self.folds))

    @property
    def tested_on(self) -> str:
        return tested_on(self.n_test, self.metrics["sessions"], len(self.folds))

    @property
    def overridden(self) -> bool:
        """It serves, or served, without having passed its gate."""
        return self.override_until is not None

    def override_ended(self, now: datetime) -> bool:
        return self.override_until is not None and now >= self.override_until

    @property
    def service(self) -> str:
        """Where it serves and who said so, in a sentence or two."""
        if self.promoted_at is None:
            return "It is a candidate and serves nothing."
        promoted = f"{_day(self.promoted_at)}, promoted by {self.promoted_by}: {self.promotion_reason}."
        if self.archived_at is not None:
            ended = f"{_day(self.archived_at)}, archived by {self.archived_by}: {self.archive_reason}."
            return f"It served {self.serving_book} from {promoted} Until {ended}"
        override = (
            f" It did not pass its gate; the override ends {_day(self.override_until)}." if self.overridden else ""
        )
        return f"It serves {self.serving_book} since {promoted}{override}"

    @property
    def unseen_from(self) -> date:
        """The first session that this very model learned nothing of; the online learner was told of its test part."""
        return self.test_to + timedelta(days=1) if self.algorithm == Algorithm.RIVER else self.test_from

    @property
    def last_tested_on(self) -> str:
        """The sessions that this very model never saw, and whose signals it scores one by one."""
        return f"{self.test_from} to {self.test_to}"


def _day(moment: datetime | None) -> str:
    return f"{timezone.localtime(moment):%Y-%m-%d %H:%M}"


class LeakageCheck(models.Model):
    """What check_leakage found of a feature set: whether any feature knows the future, and whether every planted leak
    was caught."""

    feature_set = models.CharField(max_length=16)
    checked_at = models.DateTimeField()
    inputs_sha256 = models.CharField(max_length=64, help_text="of the bars it looked at")
    points = models.PositiveIntegerField(help_text="moments after which everything was altered")
    compared = models.PositiveIntegerField(help_text="feature values compared byte by byte")
    is_clean = models.BooleanField()
    leaks = models.JSONField(default=list, help_text="features that changed before the moment")
    caught = models.JSONField(default=dict, help_text="at how many points each planted leak was found")

    class Meta:
        db_table = "ml_leakage_checks"
        ordering = ["-checked_at", "-id"]
        indexes = [models.Index(fields=["feature_set", "-checked_at"], name="leakage_of_a_feature_set")]

    def __str__(self) -> str:
        return f"{self.feature_set}: {'clean' if self.is_clean else 'not clean'}"


class Prediction(models.Model):
    """What a model said of a signal before its outcome existed. Never changed, except that the outcome is joined."""

    book = book_field()
    signal_key = models.CharField(max_length=64)
    model = models.ForeignKey(MLModel, models.CASCADE, related_name="predictions")
    mode = word_field(PredictionMode)
    p_raw = models.FloatField("P(win), raw", help_text="the probability before calibration")
    p_win = models.FloatField("P(win)", help_text="calibrated probability of a WIN")
    p_geometry = models.FloatField(
        "P(win) of geometry", help_text="risk / (risk + reward): the plan's own odds on a random walk"
    )
    threshold = models.FloatField(null=True, help_text="P(win) above which a trade of this plan pays")
    decision = word_field(Decision)
    reason = models.CharField(max_length=100, blank=True)
    overridden = models.BooleanField(default=False, help_text="the model serves without having passed its gate")
    contributions = models.JSONField(
        null=True, help_text="the features that moved it most and what each added to the log-odds of a WIN"
    )
    latency_us = models.FloatField("latency", help_text="microseconds from features to decision")
    predicted_at = models.DateTimeField()
    outcome = word_field(Outcome, null=True)

    class Meta:
        db_table = "ml_predictions"
        ordering = ["-predicted_at", "-id"]
        permissions = [("ask_model", "Can ask the model about features")]
        constraints = [
            models.UniqueConstraint(fields=["book", "signal_key", "model"], name="prediction_once_a_signal_and_model"),
            allowed("mode", PredictionMode, "prediction_mode"),
            allowed("decision", Decision, "prediction_decision"),
            models.CheckConstraint(
                condition=Q(p_win__gte=0, p_win__lte=1, p_raw__gte=0, p_raw__lte=1), name="prediction_is_a_probability"
            ),
        ]
        indexes = [
            models.Index(fields=["book", "-predicted_at", "-id"], name="prediction_newest_of_a_book"),
            models.Index(fields=["-predicted_at", "-id"], name="prediction_newest"),
            models.Index(fields=["decision", "-predicted_at", "-id"], name="prediction_by_decision"),
        ]

    def __str__(self) -> str:
        return f"{self.signal_key}: {self.p_win:.3f}"


class DriftCheck(models.Model):
    """A champion's features and errors held against those it was trained with, at one moment, and what followed."""

    book = book_field()
    model = models.ForeignKey(MLModel, models.CASCADE, related_name="drift_checks")
    checked_at = models.DateTimeField()
    rows = models.PositiveIntegerField(help_text="signals compared with those of training")
    sessions = models.PositiveIntegerField(help_text="sessions they are of")
    features = models.JSONField(
        default=dict, help_text="PSI of each, what it stays below without drift, whether it did"
    )
    errors = models.PositiveIntegerField(help_text="closed predictions since the last change of their error, or all")
    mean_error = models.FloatField(
        null=True, help_text="mean of (P(win) - won)^2 - P(win) (1 - P(win)) over them: 0 where the odds are right"
    )
    errors_before = models.PositiveIntegerField(help_text="closed predictions before that change")
    mean_error_before = models.FloatField(
        null=True, help_text="the same mean before that change; null where ADWIN found none"
    )
    alarms = models.JSONField(default=list)
    not_judged = models.JSONField(default=list, help_text="what could not be compared, and what is missing")
    stepped_down = models.BooleanField(default=False, help_text="whether PREDICTION_MODE went from filter to shadow")
    reason = models.TextField(blank=True, help_text="why, or why not, the mode was stepped down on an alarm")

    class Meta:
        db_table = "ml_drift"
        ordering = ["-checked_at", "-id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(stepped_down=False) | ~Q(reason=""), name="drift_step_down_has_a_reason"
            ),
        ]
        indexes = [
            models.Index(fields=["book", "-checked_at", "-id"], name="drift_newest_of_a_book"),
            models.Index(fields=["-checked_at", "-id"], name="drift_newest"),
        ]

    def __str__(self) -> str:
        return f"{self.book} {_day(self.checked_at)}"

    @property
    def compared(self) -> str:
        """What the check rests on, in words."""
        return (
            f"{self.rows:,} signals of {self.sessions:,} sessions and "
            f"{self.errors_before + self.errors:,} closed predictions"
        )


class Performance(models.Model):
    """One session of one book in figures. Null where a figure is undefined (no trades, one trade, no variance)."""

    book = book_field()
    session = models.DateField()
    signals = models.PositiveIntegerField(help_text="number of signals given")
    feature_rows = models.PositiveIntegerField(help_text="signals whose features were stored")
    complete_feature_rows = models.PositiveIntegerField(help_text="signals with every feature that could be known")
    trades = models.PositiveIntegerField(help_text="closed trades")
    wins = models.PositiveIntegerField(help_text="trades above zero after fees")
    losses = models.PositiveIntegerField(help_text="all other closed trades")
    pnl = money_field("P/L", help_text="dollars, after fees")
    win_rate = models.FloatField(null=True, help_text="wins as a fraction of the closed trades")
    average_pnl = models.FloatField("average P/L", null=True, help_text="dollars a trade, after fees")
    average_r = models.FloatField("average R", null=True, help_text="mean result after fees in R")
    profit_factor = models.FloatField(null=True, help_text="dollars won per dollar lost")
    sharpe_per_trade = models.FloatField(null=True, help_text="mean R / its standard deviation, never annualised")
    max_drawdown_r = models.FloatField("max drawdown", null=True, help_text="in R along the session's closed trades")
    equity_return = models.FloatField(
        null=True, help_text="P/L as a fraction of the equity that the session's first trade was sized on"
    )
    exits = models.JSONField(help_text="trades closed for each reason")
    exit_effects = models.JSONField(
        help_text="sums over the trades that each reason closed, in R, of the trades and of their plans left alone; "
        "how many plans reproduced trades that no rule touched"
    )
    judged = models.JSONField(
        help_text="what each model refused and what it let through: signals whose plan's end is certain, of these won, "
        "sums of their results in R and of their plans' odds"
    )
    breakeven_moves = models.PositiveIntegerField(help_text="stops moved to entry plus costs")
    predictions = models.PositiveIntegerField(help_text="signals that a model scored")
    prediction_p99_ms = models.FloatField(
        "slowest predictions", null=True, help_text="milliseconds within which 99 % of them were made"
    )
    unprotected_seconds = models.FloatField(help_text="seconds that filled shares had no stop, summed over trades")
    errors = models.PositiveIntegerField(help_text="number of failures after which trading went on (error_notes)")

    class Meta:
        db_table = "ml_performance"
        ordering = ["-session", "-id"]
        verbose_name_plural = "performance"
        constraints = [models.UniqueConstraint(fields=["book", "session"], name="performance_once_a_session")]

    def __str__(self) -> str:
        return f"{self.book} {self.session}"
