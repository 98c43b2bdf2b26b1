"""A model on one page, two beside each other, and the change of who serves a book, confirmed with both in view."""

from collections.abc import Callable, Iterable, Mapping
from datetime import date
from functools import partial
from typing import Any

import structlog
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect, render
from django.urls import URLPattern, path, reverse
from django.utils.safestring import SafeString

from ml.admin import MLModelAdmin
from ml.live_record import live_record
from ml.models import MLModel
from ml.registry import LONGEST_REASON, PromotionRefused, on_duty, promote, replaced_by, rollback
from ml.tables import LIVE_HEAD, RULE_WORDS, bounded, estimate, live_rows, live_sentence, rules_of
from ml.words import VERDICTS, Gate, ModelStatus
from reports import model_charts
from tradingsite.kit.readable import NOT_KNOWN, readable, rows_table

log = structlog.get_logger(__name__)

admin.site.unregister(MLModel)

LONGEST_KEY = 19  # digits of the largest number that a database counts to

#: What a model is compared by: words, where it stands in `metrics`, how it is written.
OTHER_FIGURES = (
    ("Precision: of the trades called WIN, those that won", "precision", ".3f"),
    ("Recall: of the WINs, those that were called so", "recall", ".3f"),
    ("F1: harmonic mean of both", "f1", ".3f"),
    ("MCC: correlation of what was called and what came, 0 for no skill", "mcc", "+.3f"),
    ("Average precision: its baseline is the share of WINs", "average_precision", ".3f"),
    ("Brier score: mean squared error of P(win), lower is better", "brier", ".4f"),
    ("Log-loss: lower is better", "log_loss", ".4f"),
    ("Calibration error: mean gap between predicted and observed share of WINs, in tenths", "calibration_error", ".3f"),
    ("Mean R of all test trades, after costs", "mean_r", "+.3f"),
)
GAINS = (
    ("AUC over geometry", "skill_auc"),
    ("Log-loss saved over geometry", "skill_log_loss"),
    ("Accuracy over the majority class", "accuracy_over_majority"),
    ("Mean R of what it lets through, over all", "taken_minus_all"),
)


@admin.register(MLModel)
class ModelPage(MLModelAdmin):
    change_form_before_template = "tradingsite/model.html"
    actions = ("compare",)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        model = self.get_object(request, object_id)
        more = {} if model is None else model_page(model, may_promote=request.user.has_perm("ml.change_mlmodel"))
        answer: HttpResponse = super().change_view(request, object_id, form_url, {**(extra_context or {}), **more})
        return answer

    def get_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view
        return [
            path("compare/", wrap(self.compare_view), name="ml_mlmodel_compare"),
            path("<int:pk>/promote/", wrap(self.promote_view), name="ml_mlmodel_promote"),
            path("<int:pk>/roll-back/", wrap(self.rollback_view), name="ml_mlmodel_rollback"),
            *super().get_urls(),
        ]

    @admin.action(description="Compare two models")
    def compare(self, request: HttpRequest, queryset: QuerySet[MLModel]) -> HttpResponse | None:
        chosen = list(queryset.values_list("pk", flat=True)[:3])
        if len(chosen) != 2:
            self.message_user(request, "Choose exactly two models to compare.", messages.WARNING)
            return None
        newer, older = chosen
        return HttpResponseRedirect(f"{reverse('admin:ml_mlmodel_compare')}?one={older}&other={newer}")

    def compare_view(self, request: HttpRequest) -> HttpResponse:
        """Two models by their keys, `one` and `other`."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        one, other = (self._model(_key(request.GET.get(name, ""))) for name in ("one", "other"))
        return self._page(request, "tradingsite/compare.html", "Two models", pair=side_by_side(one, other))

    def promote_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """GET shows candidate and champion side by side, POST with a reason makes the candidate the champion, unless
        another than the one shown (`serving`, its key) serves by then."""
        self._may_change(request)
        model = self._model(pk)
        if request.method == "POST":
            act = partial(promote, model, model.book, seen=_key(request.POST.get("serving", "")) or None)
            return self._done(request, model, "promote", act)
        return self._confirm(request, model, on_duty(model.book).champion, verb="Promote", book=model.book)

    def rollback_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """The same for the champion: POST withdraws it, and the one that it had replaced serves again."""
        self._may_change(request)
        model = self._model(pk)
        book = model.serving_book
        if request.method == "POST" and book is not None:
            return self._done(request, model, "roll back", partial(rollback, book, seen=model.pk))
        if model.status != ModelStatus.CHAMPION or book is None:
            raise Http404("This model serves no book; there is nothing to roll back.")
        return self._confirm(request, model, replaced_by(model), verb="Roll back", book=book)

    def _may_change(self, request: HttpRequest) -> None:
        if not request.user.has_perm("ml.change_mlmodel"):
            raise PermissionDenied

    def _model(self, pk: int) -> MLModel:
        model = MLModel.objects.defer("artifact", "manifest").filter(pk=pk).first()
        if model is None:
            raise Http404("No such model.")
        return model

    def _done(self, request: HttpRequest, model: MLModel, what: str, act: Callable[[str, str], object]) -> HttpResponse:
        who, why = request.user.get_username(), request.POST.get("why", "").replace("\0", "").strip()
        try:
            act(who, why)
        except PromotionRefused as refused:
            self.message_user(request, str(refused), messages.ERROR)
        else:
            self.log_change(request, model, f"{what}: {why}")
            log.info("model_service_changed", what=what, model=str(model), by=who, why=why)
            self.message_user(request, f"Done: {what} {model.version}. A running trader hears of it within seconds.")
        return redirect("admin:ml_mlmodel_change", model.pk)

    def _confirm(
        self, request: HttpRequest, model: MLModel, served: MLModel | None, *, verb: str, book: str
    ) -> HttpResponse:
        """`served`: who serves now, or did before the model."""
        before = self._model(served.pk) if served else None
        return self._page(
            request,
            "tradingsite/promote.html",
            f"{verb} {model.version}",
            model=model,
            before=before,
            pair=side_by_side(before, model) if before else side_by_side(model),
            verb=verb,
            book=book,
            verdict=VERDICTS[Gate(model.gate)],
            longest=LONGEST_REASON,
        )

    def _page(self, request: HttpRequest, template: str, title: str, **context: Any) -> HttpResponse:
        shared = {**self.admin_site.each_context(request), "title": title, "opts": MLModel._meta}
        return render(request, template, {**shared, **context})


def _key(text: str) -> int:
    """The number that was given; 0, which is no row's key, for anything else."""
    return int(text) if text.isdecimal() and len(text) <= LONGEST_KEY else 0


def model_page(model: MLModel, *, may_promote: bool) -> dict[str, Any]:
    """What the page shows besides the model's own fields; two queries more than these, for the champion and
    for live signals."""
    metrics, live = model.metrics, live_record(model)
    return {
        "title": f"Model {model.version} of {model.book}",
        "verdict": VERDICTS[Gate(model.gate)],
        "sentence": metrics.get("in_one_sentence", ""),
        "figures": _figures(model) | ({"live": model_charts.live(live)} if live else {}),
        "live_sentence": live_sentence(live),
        "live": rows_table(LIVE_HEAD, live_rows(live)) if live else "",
        "rules": rules(metrics, model.algorithm) if "baselines" in metrics else "",
        "gains": gains([metrics]) if "skill_auc" in metrics else "",
        "others": other_figures([metrics]) if "intervals" in metrics else "",
        "confusion": _confusion(metrics) if "true_positives" in metrics else "",
        "windows": _windows(model.folds),
        "may_promote": may_promote and model.status == ModelStatus.CANDIDATE,
        "may_roll_back": may_promote and model.status == ModelStatus.CHAMPION,
        "serving": on_duty(model.book).champion,
    }


def _figures(model: MLModel) -> dict[str, Any]:
    curves, figures = model.metrics.get("curves", {}), {}
    if curves.get("roc"):
        figures["roc"] = model_charts.roc(curves["roc"], curves["roc_geometry"])
    if curves.get("value_by_threshold"):
        figures["value"] = model_charts.value_by_threshold(curves["value_by_threshold"])
    if model.metrics.get("deciles"):
        figures["calibration"] = model_charts.calibration(model.metrics["deciles"])
    if any(model.importance.get("gain", {}).values()):
        figures["gain"] = model_charts.importance(model.importance["gain"], "mean gain of a split")
    if model.importance.get("sample"):
        figures["shap"] = model_charts.beeswarm(model.importance["sample"])
    return figures


def rules(metrics: Mapping[str, Any], algorithm: str) -> SafeString:
    """The model and every baseline on the same test trades."""
    return rows_table(
        ("rule", "AUC", "accuracy", "log-loss", "Brier", "lets through", "mean R of these"),
        [
            [
                name,
                bounded(row["auc"], row["auc_interval"]),
                bounded(row["accuracy"], row["accuracy_interval"]),
                f"{row['log_loss']:.3f}",
                f"{row['brier']:.3f}",
                row["n_taken"],
                bounded(row["mean_r_taken"], row["mean_r_taken_interval"], "+.3f"),
            ]
            for name, row in rules_of(metrics, algorithm)
        ],
    )


def gains(of: Iterable[Mapping[str, Any]]) -> SafeString:
    """What models add, each with its 95 % interval, a pair of columns each."""
    return _beside(of, lambda metrics: [(words, *estimate(metrics.get(key))) for words, key in GAINS])


def other_figures(of: Iterable[Mapping[str, Any]]) -> SafeString:
    """The same for figures of the models by themselves."""

    def lines(metrics: Mapping[str, Any]) -> list[tuple[str, str, str]]:
        intervals = metrics["intervals"]
        return [
            (words, *estimate({"value": metrics[key], "interval": intervals.get(key)}, style))
            for words, key, style in OTHER_FIGURES
        ]

    return _beside(of, lines)


def _beside(
    of: Iterable[Mapping[str, Any]], lines: Callable[[Mapping[str, Any]], list[tuple[str, str, str]]]
) -> SafeString:
    columns = [lines(metrics) for metrics in of]
    head = ["figure", *(word for _ in columns for word in ("value", "95 %"))]
    return rows_table(
        head, [[rows[0][0], *(cell for row in rows for cell in row[1:])] for rows in zip(*columns, strict=True)]
    )


def _confusion(metrics: Mapping[str, Any]) -> SafeString:
    return rows_table(
        ("at P(win) of one half", "called WIN", "called LOSS"),
        [
            ["it was a WIN", metrics["true_positives"], metrics["false_negatives"]],
            ["it was a LOSS", metrics["false_positives"], metrics["true_negatives"]],
        ],
    )


def _windows(folds: Iterable[Mapping[str, Any]]) -> SafeString:
    """One line a test window."""

    def part(of: Mapping[str, Any]) -> str:
        first, last = (date.fromisoformat(of[name]) for name in ("from", "to"))
        purged = f", {of['purged']} purged" if of.get("purged") else ""
        return f"{first} to {last}: {of['n']:,} trades{purged}"

    return rows_table(
        (
            "trained on",
            "validated on",
            "tested on",
            "AUC",
            "AUC of geometry",
            "accuracy",
            "mean R of what it lets through",
        ),
        [
            [
                part(fold["train"]),
                part(fold["validation"]),
                part(fold["test"]),
                bounded(fold["metrics"]["auc"], fold["metrics"]["auc_interval"]),
                readable(fold["metrics"]["geometry"]["auc"]),
                bounded(fold["metrics"]["accuracy"], fold["metrics"]["intervals"]["accuracy"]),
                bounded(fold["metrics"]["mean_r_taken"], fold["metrics"]["intervals"]["mean_r_taken"], "+.3f"),
            ]
            for fold in folds
            if "train" in fold
        ],
    )


def side_by_side(*models: MLModel) -> dict[str, Any]:
    """Models in columns: what they are, what the gate said of them and their figures."""
    facts = (
        ("Book", [model.book for model in models]),
        ("Algorithm", [RULE_WORDS[model.algorithm] for model in models]),
        ("Label", [model.label for model in models]),
        ("Status", [model.status for model in models]),
        ("Gate", [model.gate for model in models]),
        ("May skip trades", ["yes" if model.may_filter else "no" for model in models]),
        ("Trained on", [model.trained_on for model in models]),
        ("Tested on", [model.tested_on for model in models]),
        ("AUC", [_auc(model) for model in models]),
        (
            "AUC of geometry on the same trades",
            [readable(model.metrics.get("geometry", {}).get("auc")) for model in models],
        ),
    )
    known = all("intervals" in model.metrics and "skill_auc" in model.metrics for model in models)
    return {
        "versions": [model.version for model in models],
        "facts": rows_table(
            ("fact", *(model.version for model in models)), [[words, *cells] for words, cells in facts]
        ),
        "gains": gains([model.metrics for model in models]) if known else "",
        "others": other_figures([model.metrics for model in models]) if known else "",
        "same_test": len({(model.book, model.tested_from, model.test_to) for model in models}) == 1,
    }


def _auc(model: MLModel) -> str:
    value = model.metrics.get("auc")
    return NOT_KNOWN if value is None else bounded(value, model.metrics.get("auc_interval"))
