"""What every command of ours has: an example, its exit statuses, `--json FILE`."""

from collections.abc import Mapping
from typing import Any

from django.core.management.base import BaseCommand, CommandParser, DjangoHelpFormatter, SystemCheckError

from tradingsite.kit.json_file import add_json_option, check_json_file
from tradingsite.kit.options import BAD_CONFIGURATION, INTERRUPTED, NO_DATABASE

#: Of a command that reads or writes the database, and ends as all do.
USUAL: Mapping[int, str] = {
    0: "done",
    BAD_CONFIGURATION: "bad input or configuration",
    NO_DATABASE: "the database cannot be reached",
}


class _Formatter(DjangoHelpFormatter):
    """Keeps line breaks; what a line does not hold goes on in the next, indented as it began."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        filled = []
        for line in text.splitlines():
            depth = len(line) - len(line.lstrip())
            rest = super()._fill_text(line.strip(), width - depth, "").splitlines() or [""]
            filled += [" " * depth + each for each in rest]
        return "\n".join(filled)


class SiteCommand(BaseCommand):
    """`example` is the arguments of a call that works, `exit_status` what each status means; 130 is of every command.

    `--json` is checked before any work, and written by the command.
    """

    example = ""
    exit_status: Mapping[int, str] = USUAL

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        statuses = {**self.exit_status, INTERRUPTED: "interrupted"}
        told = "\n".join(f"  {status:>3}  {meaning}" for status, meaning in sorted(statuses.items()))
        call = f"python manage.py {subcommand} {self.example}".rstrip()
        epilog = f"Example:\n  {call}\n\nExit status:\n{told}"
        parser = super().create_parser(prog_name, subcommand, formatter_class=_Formatter, epilog=epilog, **kwargs)
        add_json_option(parser)
        return parser

    def execute(self, *args: Any, **options: Any) -> str | None:
        check_json_file(options.get("json"))
        try:
            return super().execute(*args, **options)
        except SystemCheckError as error:
            error.returncode = BAD_CONFIGURATION
            raise
