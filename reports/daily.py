"""The daily report: one session of a book beside the whole book so far, every figure with its n and its interval."""

import importlib.util
import json
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from urllib.parse import urlencode

from django.conf import settings
from django.template.loader import render_to_string

from ml.impact import LEAST_SESSIONS
from ml.models import MLModel
from ml.performance_tracker import PerformanceTracker, Sample, SessionRecord
from ml.tables import bounded, rules_of
from positions.books import folder_name
from positions.market.calendar import NEW_YORK, session_of
from positions.models import Trade
from positions.words import Outcome
from reports import charts, impact
from reports.figures import FEW_TRADES, Figure, Line, dollars, exit_lines, in_r, lines, mean_r, plural
from reports.impact import ImpactRow
from reports.pictures import Picture, pictures

MARKETS = {
    "simulated": "These trades are invented: a simulated market. They say nothing about a real one.",
    "replay": "These trades were never made: bars from a file replayed, with simulated fills.",
    "paper": "Paper account: real prices, the broker's simulated fills, no money.",
    "live": "Live account: real money.",
}

#: What draws the figures; each page carries it, for it is opened from disk too.
DRAW = Path(__file__).parent / "static" / "reports" / "figures.js"
IMPACT_TITLE = "What the exit rules were worth, book so far"

_PAGES = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9].html"


@dataclass(frozen=True, slots=True)
class TradeLine:
    """A closed trade as the report lists it; times are New York's, money is dollars after fees."""

    symbol: str
    side: str
    entered_at: datetime
    exited_at: datetime
    quantity: int
    entry_price: Decimal | None
    exit_price: Decimal | None
    exit_reason: str
    pnl: Decimal
    r_multiple: float | None
    mae_r: float | None
    mfe_r: float | None
    outcome: str
    admin_path: str

    @property
    def entered(self) -> str:
        return f"{self.entered_at:%H:%M}"

    @property
    def exited(self) -> str:
        return f"{self.exited_at:%H:%M}"

    @property
    def result(self) -> str:
        return dollars(self.pnl)

    @property
    def in_r(self) -> str:
        return in_r(self.r_multiple)

    @property
    def worst(self) -> str:
        return in_r(None if self.mae_r is None else -self.mae_r)

    @property
    def best(self) -> str:
        return in_r(self.mfe_r)


@dataclass(frozen=True, slots=True)
class RuleLine:
    """The latest model or a baseline, on the same out-of-sample trades; `earned` by those it would let through."""

    name: str
    auc: str
    accuracy: str
    taken: str
    earned: str


@dataclass(frozen=True, slots=True)
class Report:
    book: str
    market: str
    day: date
    sessions: int
    headline: str
    baseline: str
    model: str
    rules: tuple[RuleLine, ...]
    lines: tuple[Line, ...]
    exits: tuple[Line, ...]
    impact: tuple[ImpactRow, ...]
    impact_sentences: tuple[str, ...]
    trades: tuple[TradeLine, ...]
    pictures: tuple[Picture, ...]


def build_report(book: str, day: date) -> Report:
    """Everything about one session, also about one without a signal; refreshes its row of `ml_performance`."""
    tracker = PerformanceTracker(book)
    history = tracker.read(last=day)
    tracker.store([history[day]] if day in history else [])
    return _report(book, day, history, _latest_model(book))


def write_report(book: str, day: date) -> Path:
    """Write the session's HTML page and return its path, which is the same each time."""
    return _write(build_report(book, day))


def write_missing(book: str, progress: Callable[[int, int], None] = lambda done, total: None) -> list[Path]:
    """Write the page of every session of the book that has none, or one from before its close, oldest first. `progress`
    hears of each page that is done, and of how many there are."""
    tracker = PerformanceTracker(book)
    history = tracker.read()
    missing = [day for day in history if not _written_after_close(book, day)]
    tracker.store(history[day] for day in missing)
    model = _latest_model(book)
    paths = []
    for day in missing:
        paths.append(_write(_report(book, day, _until(history, day), model)))
        progress(1, len(missing))
    return paths


def _written_after_close(book: str, day: date) -> bool:
    page, session = report_path(book, day), session_of(day)
    if session is None or not page.exists():
        return page.exists()
    return datetime.fromtimestamp(page.stat().st_mtime, UTC) >= session.close


def remove_reports(book: str) -> None:
    """Remove every page of a book, as when its trades are replaced; a book without pages is no error."""
    for page in folder_of(book).glob(_PAGES):
        page.unlink(missing_ok=True)


def written_reports() -> list[tuple[str, list[date]]]:
    """The sessions that have a page, newest first, by the name of their book's folder."""
    return [
        (folder.name, sorted((date.fromisoformat(page.stem) for page in pages), reverse=True))
        for folder in sorted(_folder().glob("*/"))
        if (pages := list(folder.glob(_PAGES)))
    ]


def report_path(book: str, day: date) -> Path:
    return folder_of(book) / f"{day.isoformat()}.html"


def folder_of(book: str) -> Path:
    """Where a book's pages lie; never outside the reports' folder. The folder's name leads to the same folder."""
    return _folder() / folder_name(book)


def errors_path(book: str, day: date) -> str:
    """The admin's list of a session's errors."""
    query = urlencode({"book": book, "session_from": day, "session_to": day})
    return f"/admin/positions/errornote/?{query}"


def render_html(report: Report) -> str:
    return render_to_string(
        "reports/daily.html",
        {
            "report": report,
            "few_trades": FEW_TRADES,
            "impact_title": IMPACT_TITLE,
            "impact_headings": impact.HEADINGS,
            "figures": {picture.key: picture.figure for picture in report.pictures},
            "draw": DRAW.read_text(encoding="utf-8"),
        },
    )


def render_json(report: Report) -> str:
    """The report without its pictures; prices and money as decimal strings, times ISO 8601."""
    content = asdict(replace(report, pictures=()))
    del content["pictures"]
    return json.dumps(content, indent=2, default=_plain, allow_nan=False)


def render_markdown(report: Report) -> str:
    parts = [
        f"# {report.book}, {_long_date(report.day)}",
        f"**{report.market}**",
        report.headline,
        report.baseline,
        report.model,
        *_markdown_rules(report.rules),
        _markdown_table(f"Figures (book so far: {plural(report.sessions, 'session')})", report.lines),
    ]
    if report.exits:
        parts.append(_markdown_table("Mean R by exit", report.exits))
    if report.impact_sentences:
        parts.append(_markdown_impact(report))
    if report.trades:
        head = "| symbol | side | in | out | exit | P/L | R | worst | best |\n|---|---|---|---|---|---:|---:|---:|---:|"
        rows = [
            f"| {t.symbol} | {t.side} | {t.entered} | {t.exited} | {t.exit_reason} | {t.result} | {t.in_r} "
            f"| {t.worst} | {t.best} |"
            for t in report.trades
        ]
        parts.append("\n".join([f"## Trades (times in New York)\n\n{head}", *rows]))
    return "\n\n".join(parts) + "\n"


def _markdown_impact(report: Report) -> str:
    head = f"| {' | '.join(impact.HEADINGS)} |\n|---|{'---:|' * (len(impact.HEADINGS) - 2)}---|"
    rows = [f"| {' | '.join(asdict(row).values())} |" for row in report.impact]
    table = ["\n".join([head, *rows])] if rows else []
    return "\n\n".join([f"## {IMPACT_TITLE}", *table, *report.impact_sentences])


def _markdown_rules(rules: Collection[RuleLine]) -> list[str]:
    if not rules:
        return []
    head = "| out of sample | AUC | accuracy | let through | mean R of these |\n|---|---:|---:|---:|---:|"
    rows = [f"| {rule.name} | {rule.auc} | {rule.accuracy} | {rule.taken} | {rule.earned} |" for rule in rules]
    return ["\n".join(["## The latest model and its baselines\n", head, *rows])]


def _report(book: str, day: date, history: Mapping[date, SessionRecord], model: MLModel | None) -> Report:
    session, so_far = Sample([history.get(day, SessionRecord(day))]), Sample(history.values())
    spans = [_span(_trade_line(trade)) for trade in session.closed]
    return Report(
        book=book,
        market=MARKETS.get(book.partition(":")[0], "A book of unknown kind: nothing says where its trades come from."),
        day=day,
        sessions=len(history),
        headline=_headline(day, session),
        baseline=_verdict(f"The book so far ({plural(len(history), 'session')})", so_far),
        model=_model_sentence(model),
        rules=_rules(model),
        lines=tuple(_with_rows(line, book, day) for line in lines(session, so_far)),
        exits=exit_lines(session, so_far),
        impact=impact.rows(so_far.impact),
        impact_sentences=impact.sentences(so_far.impact) if so_far.closed else (),
        trades=tuple(_trade_line(trade) for trade in sorted(session.closed, key=_entered)),
        pictures=tuple(pictures(day, history, session, so_far, spans)),
    )


def _with_rows(line: Line, book: str, day: date) -> Line:
    return replace(line, admin_path=errors_path(book, day)) if line.key == "errors" and line.session.value else line


def _headline(day: date, session: Sample) -> str:
    on = f"On {_long_date(day)}"
    if not session.signals:
        return f"{on} there was no signal and no trade."
    if not session.closed:
        return f"{on} there were {plural(session.signals, 'signal')} and no closed trade."
    return _verdict(on, session)


def _verdict(what: str, sample: Sample) -> str:
    if not sample.closed:
        return f"{what}: no closed trade yet."
    average = mean_r(sample, sample.measured)
    return (
        f"{what}: {plural(len(sample.closed), 'trade')}, {sample.wins:,} won, "
        f"{dollars(float(sample.pnl.sum()))} after fees, {average.text} on average"
        f"{f' (95% {average.detail})' if average.detail else ''}. {_caution(average, len(sample.records))}"
    )


def _caution(average: Figure, sessions: int) -> str:
    if average.few:
        return f"{plural(average.n, 'trade')}: too few to say."
    if sessions < LEAST_SESSIONS:
        return f"{plural(sessions, 'session')}, whose trades move together: too few to say."
    if average.interval is None or average.interval.contains(0.0):
        return "The average cannot be told from zero."
    side = "above" if average.interval.low > 0 else "below"
    return f"The average is {side} zero by more than chance explains in a single look; looked at daily, it is a hint."


def _latest_model(book: str) -> MLModel | None:
    newest = MLModel.objects.filter(book=book).order_by("-created_at", "-id")
    shown = ("version", "algorithm", "status", "gate", "gate_reasons", "metrics", "folds", "n_train", "n_test")
    return newest.only(*shown).first()


def _model_sentence(model: MLModel | None) -> str:
    if model is None:
        return "No model: none was trained on this book, or there were too few trades to train one."
    auc, interval = model.metrics.get("auc"), model.metrics.get("auc_interval")
    geometry = model.metrics.get("geometry", {}).get("auc")
    parts = [
        f"Latest model {model.version} ({model.status}): trained on {model.trained_on}, tested on {model.tested_on}"
    ]
    if auc is not None:
        between = f"95% {interval['low']:.2f} to {interval['high']:.2f}" if interval else "no interval"
        parts.append(f", AUC {auc:.2f} ({between})")
    if geometry is not None:
        parts.append(f", AUC of the plan's geometry alone {geometry:.2f}")
    first = f"{model.metrics['in_one_sentence']} " if "in_one_sentence" in model.metrics else ""
    reasons = " ".join(model.gate_reasons)
    return f"{first}{''.join(parts)}. Gate: {model.gate}. {reasons}".rstrip()


def _rules(model: MLModel | None) -> tuple[RuleLine, ...]:
    if model is None or "baselines" not in model.metrics:
        return ()
    return tuple(
        RuleLine(
            name,
            bounded(row["auc"], row["auc_interval"]),
            bounded(row["accuracy"], row["accuracy_interval"]),
            f"{row['n_taken']:,}",
            bounded(row["mean_r_taken"], row["mean_r_taken_interval"], "+z.3f"),
        )
        for name, row in rules_of(model.metrics, model.algorithm)
    )


def _trade_line(trade: Trade) -> TradeLine:
    assert trade.exited_at is not None  # closed: a constraint of the table
    assert trade.pnl is not None
    return TradeLine(
        symbol=trade.symbol,
        side=trade.side,
        entered_at=_entered(trade).astimezone(NEW_YORK),
        exited_at=trade.exited_at.astimezone(NEW_YORK),
        quantity=trade.quantity,
        entry_price=trade.entry_price,
        exit_price=trade.exit_price,
        exit_reason=str(trade.exit_reason),
        pnl=trade.pnl,
        r_multiple=trade.r_multiple,
        mae_r=trade.mae_r,
        mfe_r=trade.mfe_r,
        outcome=str(trade.outcome),
        admin_path=f"/admin/positions/trade/{trade.pk}/change/",
    )


def _entered(trade: Trade) -> datetime:
    return trade.entered_at or trade.signal_at


def _span(trade: TradeLine) -> charts.Span:
    return charts.Span(
        symbol=trade.symbol,
        start=trade.entered_at,
        end=trade.exited_at,
        won=trade.outcome == Outcome.WIN,
        text=f"{trade.side}, {trade.entered} to {trade.exited}, {trade.in_r}, {trade.exit_reason}",
    )


def _folder() -> Path:
    return Path(settings.VAR_DIR) / "reports"


def _write(report: Report) -> Path:
    path = report_path(report.book, report.day)
    path.parent.mkdir(parents=True, exist_ok=True)
    _provide_plotly(_folder() / "plotly.min.js")
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(render_html(report), encoding="utf-8")
    draft.replace(path)
    return path


def _provide_plotly(target: Path) -> None:
    """Lay plotly.js beside the reports, so that a page opened from disk finds it; the site serves its own."""
    spec = importlib.util.find_spec("plotly")
    assert spec is not None, "plotly is in requirements.txt"
    assert spec.origin is not None
    source = Path(spec.origin).parent / "package_data" / "plotly.min.js"
    if target.exists() and target.stat().st_size == source.stat().st_size:
        return
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copyfile(source, draft)
    draft.replace(target)


def _until(history: Mapping[date, SessionRecord], last: date) -> dict[date, SessionRecord]:
    return {day: record for day, record in history.items() if day <= last}


def _long_date(day: date) -> str:
    return f"{day:%A} {day.day} {day:%B %Y}"


def _plain(value: object) -> str:
    if isinstance(value, date | datetime):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _markdown_table(title: str, table: Collection[Line]) -> str:
    def cell(figure: Figure) -> str:
        between = f" ({figure.detail})" if figure.detail else ""
        few = ", few" if figure.few else ""
        return f"{figure.text}{between}, n {figure.n:,}{few}" if not figure.why else f"– ({figure.why})"

    rows = [f"| {line.label} | {cell(line.session)} | {cell(line.book)} |" for line in table]
    return "\n".join([f"## {title}\n", "| | session | book so far |", "|---|---|---|", *rows])
