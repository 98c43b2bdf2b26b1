"""The documents as data: pages, their shell examples, their links."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from django.conf import settings

ROOT = Path(settings.BASE_DIR)
PAGES = sorted(str(path.relative_to(ROOT)) for path in [ROOT / "README.md", *ROOT.glob("docs/*.md")])
NOT_RUN = "not run: "


def text_of(page: str) -> str:
    return (ROOT / page).read_text()


@dataclass(frozen=True)
class Example:
    """A block of shell lines. `about` is what stands behind the language: `runnable` and perhaps more words, or
    `not run:` and why."""

    page: str
    about: str
    script: str

    @property
    def words(self) -> list[str]:
        return self.about.split()

    @property
    def is_runnable(self) -> bool:
        return self.words[:1] == ["runnable"]

    @property
    def why_not(self) -> str:
        return self.about.removeprefix(NOT_RUN) if self.about.startswith(NOT_RUN) else ""

    def with_words(self, given: dict[str, str]) -> "Example":
        """The reader's own names in place of those in capitals."""
        script = self.script
        for name, value in given.items():
            script = re.sub(rf"(?<![\w$]){name}\b", value, script)
        return replace(self, script=script)


def examples_of(page: str) -> list[Example]:
    blocks = re.findall(r"^```(?:sh|console)\b ?([^\n]*)\n(.*?)^```$", text_of(page), re.MULTILINE | re.DOTALL)
    return [Example(page, about, script) for about, script in blocks]
