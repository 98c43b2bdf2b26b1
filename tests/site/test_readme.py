"""The README is short and true: two commands, what they show, and the figures of the documents it leads to."""

import re

from tests.site.documents import PAGES, examples_of, text_of

README = text_of("README.md")


def test_the_two_commands_stand_at_the_top():
    assert examples_of("README.md")[0].script.splitlines() == [
        "pip install -r requirements.txt && python manage.py quickstart",
        "pip install -r requirements.txt && python -m pytest",
    ]


def test_it_is_read_in_five_minutes():
    assert len(README.split()) < 900


def test_every_document_is_reached_from_it():
    assert {page for page in PAGES if page != "README.md" and f"]({page})" not in README} == set()


def test_its_figures_are_those_of_the_documents_that_they_are_from():
    """Spaces aside: "0.000 ± 0.052" is "0.000±0.052" there."""
    told = README.split("## Is it any good?")[1].split("## Where to go on")[0]
    by_document = {"docs/learning.md": told.split("- **The exit rules.**")[0], "docs/impact.md": told.split("- **")[2]}
    for page, text in by_document.items():
        source = text_of(page).replace(" ", "")
        figures = re.findall(r"-?\d\.\d{3}(?: ?± ?\d\.\d{3})?|\d{1,2},\d{3}", text)
        assert len(figures) >= 4
        assert [figure for figure in figures if figure.replace(" ", "") not in source] == []
