"""Stored values as people read them."""

from decimal import Decimal
from typing import Any

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

NOT_KNOWN = "–"
CELL = "align-top border-b border-base-200 dark:border-base-800 px-3 py-1.5 text-left"


def readable(value: Any) -> str:
    """One value: four significant digits below a hundred, two decimals above, a dash for what is undefined.

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
    head = format_html_join("", '<th class="{} font-medium">{}</th>', ((CELL, name.replace("_", " ")) for name in names))
    rows = (
        (format_html_join("", '<td class="{}">{}</td>', ((CELL, table(record.get(name))) for name in names)),)
        for record in records
    )
    return format_html(
        '<div class="overflow-x-auto"><table><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>',
        head,
        format_html_join("", "<tr>{}</tr>", rows),
    )


def rows_table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> SafeString:
    """A table of rows that all have the columns of `head`."""
    return _records([dict(zip(head, row, strict=True)) for row in rows]) if rows else mark_safe(NOT_KNOWN)
