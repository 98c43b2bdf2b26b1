"""What the abbreviations and the words in capitals on a page mean, told at its foot."""

import re

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

GLOSSARY = {
    "ADWIN": "adaptive windowing, a test that finds since when the mean of a series is another",
    "ADX": "average directional index: how strong a trend is, 0 to 100",
    "API": "application programming interface: how other programs ask this site and have it act",
    "ATR": "average true range: how far the price usually moves within a bar, in dollars",
    "AUC": "area under the ROC curve: how often a model ranks a winner above a loser; 0.5 is a coin",
    "CSV": "comma-separated values: a text file that every spreadsheet opens",
    "EDT": "New York's time in summer",
    "EMA": "exponential moving average of the price; the number is how many bars it looks back",
    "EST": "New York's time in winter",
    "ETF": "exchange-traded fund: a whole sector or index that trades as one share",
    "F1": "harmonic mean of precision and recall",
    "FAIL": "the gate's verdict on a model that is not good enough: it decides nothing",
    "INSUFFICIENT_DATA": "the gate's verdict where too few trades and sessions were tested to judge",
    "JSON": "a text format in which programs answer each other",
    "LDAP": "a directory of users and passwords outside this site",
    "LOSS": "a trade, or a plan, that made nothing or less after costs",
    "MACD": "moving average convergence divergence: a fast average of the price less a slow one, in dollars",
    "MAE": "maximum adverse excursion: how far the price went against the trade at its worst",
    "MCC": "Matthews correlation coefficient of what was called and what came; 0 is no skill, 1 perfect",
    "MFE": "maximum favourable excursion: how far the price went for the trade at its best",
    "P(win)": "a model's probability that a trade ends as a WIN",
    "P/L": "profit or loss",
    "PASS": "the gate's verdict on a model that was good enough on sessions it never saw: it may be promoted",
    "PSI": "population stability index: how far a feature has moved from its values in training; 0 is not at all",
    "R": "what a trade risked at entry, |entry - initial stop| per share: the unit in which results are told",
    "ROC": "receiver operating characteristic: winners found against losers taken with them, threshold by threshold",
    "RSI": "relative strength index: how much of the latest price changes were rises, 0 to 100",
    "SHA256": "a fingerprint: other content, other fingerprint",
    "SHAP": "Shapley additive explanations: how much of a prediction each feature accounts for",
    "UTC": "coordinated universal time, New York's plus five hours in winter and four in summer",
    "VIX": "the volatility that options on the S&P 500 are priced for, in percent a year",
    "VWAP": "volume-weighted average price of the session so far",
    "WIN": "a trade, or a plan, that made money after costs",
}
#: Where the page's layout says that they go.
PLACE = '<footer id="abbreviations"></footer>'
#: Words of English too, and meant only in capitals.
_ENGLISH = {"FAIL", "LOSS", "PASS", "WIN"}
_WORDS = {word.upper(): word for word in GLOSSARY}
_LONGEST_FIRST = "|".join(re.escape(word) for word in sorted(GLOSSARY, key=len, reverse=True))
_ANY = re.compile(rf"(?<![A-Z0-9_])({_LONGEST_FIRST})(?:e?s)?(?![A-Z_])", re.IGNORECASE)
_UNSEEN = re.compile(r"<(script|style)\b.*?</\1>|<[^>]*>", re.DOTALL)


def abbreviations(html: str) -> set[str]:
    """The words of the glossary that a page shows, those that are not English also in small letters (`rsi14`)."""
    found = set(_ANY.findall(_UNSEEN.sub(" ", html)))
    return {_WORDS[word.upper()] for word in found if word.isupper() or word.upper() not in _ENGLISH}


def explain(html: str) -> str:
    """The page with its abbreviations explained in PLACE, and those that the explanations bring along."""
    words: set[str] = set()
    new = abbreviations(html)
    while new:
        words |= new
        new = abbreviations(" ".join(GLOSSARY[word] for word in new)) - words
    return html.replace(PLACE, _list(sorted(words, key=str.upper)))


def _list(words: list[str]) -> SafeString:
    lines = format_html_join("", "<div><dt>{}</dt>: <dd>{}</dd></div>", ((word, GLOSSARY[word]) for word in words))
    return format_html('<footer id="abbreviations" aria-label="Abbreviations"><dl>{}</dl></footer>', lines)
