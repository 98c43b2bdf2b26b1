#!/usr/bin/env python
import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tradingsite.settings")
    from django.core.management import execute_from_command_line

    from tradingsite.console import one_line_errors

    with one_line_errors():
        execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
