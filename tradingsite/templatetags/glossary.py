"""`{% filter explained %}` around a page, with the place for them in it, explains its abbreviations."""

from django import template
from django.utils.safestring import SafeString, mark_safe

from tradingsite.kit.glossary import explain

register = template.Library()


@register.filter
def explained(html: SafeString) -> SafeString:
    return mark_safe(explain(html))  # what a template rendered, and words of our own
