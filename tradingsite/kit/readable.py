"""Stored values as people read them."""

import re
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

NOT_KNOWN = "–"
FILLED_BY_A_RUN = "Run python manage.py quickstart or python manage.py replay --bars FILE, or trade."
#: What is read as one: a date, a number with its unit.
ONE_LINE = re.compile(r"[-+$\d]\S*(?: [A-Za-z%]{1,7})?")
CELL = "align-top border-b border-base-200 dark:border-base-800 px-3 py-1.5 text-left"


def readable(value: Any) -> str:
    """One value: four significant digits below a hundred, two decimals above, times in New York, a dash for undefined.

    >>> [readable(value) for value in (0.123456, -1234.5, Decimal("101.230000"), 7, None, True)]
    ['0.1235', '-1,234.50', '101.23', '7', '–', 'yes']
    """
    if value is None:
        return NOT_KNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Decimal):
        cents = value.quantize(Decimal("0.01"))
        return f"{cents:,}" if cents == value else f"{value.normalize():,f}"
    if isinstance(value, float):
        return f"{value:,.2f}" if abs(value) >= 100 else f"{value:.4g}"
    if isinstance(value, datetime):
        return f"{timezone.localtime(value):%Y-%m-%d %H:%M:%S %Z}"
    return str(value)


def table(value: Any) -> SafeString:
    """Stored JSON as small tables: names down the side, records with their names along the top, lists as lines."""
    if isinstance(value, dict) and value:
        rows = ((CELL, name.replace("_", " "), CELL, table(part)) for name, part in value.items())
        body = format_html_join("", '<tr><th class="{} font-medium">{}</th><td class="{}">{}</td></tr>', rows)
        return format_html("<table>{}</table>", body)
    if isinstance(value, list) and value and all(isinstance(part, dict) for part in value):
        return _records(value)
    if isinstance(value, list) and value:
        if all(isinstance(part, int | float | None) for part in value):
            return format_html("{}", ", ".join(readable(part) for part in value))
        return format_html("<ul>{}</ul>", format_html_join("", "<li>{}</li>", ((table(part),) for part in value)))
    return format_html("{}", NOT_KNOWN if value in ({}, [], "") else readable(value))


def _records(records: list[dict[str, Any]]) -> SafeString:
    names = list(dict.fromkeys(name for record in records for name in record))
    head = [name.replace("_", " ") for name in names]
    return rows_table(head, ([table(record.get(name)) for name in names] for record in records))


def rows_table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> SafeString:
    """A table with a head, which scrolls sideways where it is too wide; nothing where there is no row."""
    lines = [(format_html_join("", '<td class="{}">{}</td>', (_cell(value) for value in row)),) for row in rows]
    if not lines:
        return SafeString("")
    return format_html(
        '<div class="overflow-x-auto"><table class="w-full"><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>',
        format_html_join("", '<th class="{} font-medium">{}</th>', ((CELL, name) for name in head)),
        format_html_join("", "<tr>{}</tr>", lines),
    )


def _cell(value: Any) -> tuple[str, str]:
    """Its classes and what it shows; a moment may break between date and time, and nowhere else."""
    if isinstance(value, datetime):
        halves = ((half,) for half in readable(value).split(" ", 1))
        return CELL, format_html_join(" ", '<span class="whitespace-nowrap">{}</span>', halves)
    shown = value if isinstance(value, SafeString) else readable(value)
    return (f"{CELL} whitespace-nowrap" if ONE_LINE.fullmatch(shown) else CELL), shown
