import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

from tradingsite.environment import (
    BadEnvironment,
    env_bool,
    env_list,
    env_number,
    installation_id,
    installation_secret,
    read_env_file,
)

READ = set(
    re.findall(
        r'env_(?:str|bool|list|number)\(\s*"([A-Z_]+)"', (settings.BASE_DIR / "tradingsite/settings.py").read_text()
    )
)
EXAMPLE = (settings.BASE_DIR / ".env.example").read_text()


def test_every_variable_that_is_read_stands_in_the_example_and_no_other() -> None:
    assert "DATABASE_URL" in READ
    assert set(re.findall(r"^#([A-Z_]+)=", EXAMPLE, re.MULTILINE)) == READ


def test_the_example_changes_nothing_until_a_line_is_uncommented() -> None:
    assert all(line.startswith("#") or not line for line in EXAMPLE.splitlines())


def test_a_file_fills_in_what_the_environment_lacks_and_never_overrides_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text('BOOK=paper:1\nSTRATEGY="mine.Strategy"  # my own\n')
    monkeypatch.setenv("BOOK", "live:1")
    monkeypatch.setenv("STRATEGY", "")
    monkeypatch.delenv("STRATEGY")
    read_env_file(tmp_path / ".env")
    assert (os.environ["BOOK"], os.environ["STRATEGY"]) == ("live:1", "mine.Strategy")


def test_a_missing_file_is_no_error(tmp_path: Path) -> None:
    read_env_file(tmp_path / ".env")


@pytest.mark.parametrize(
    ("raw", "expected"), [("yes", True), (" TRUE ", True), ("off", False), ("0", False), ("", True)]
)
def test_switches_are_read_in_words(raw: str, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWITCH", raw)
    assert env_bool("SWITCH", True) is expected


def test_a_word_that_is_no_switch_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWITCH", "perhaps")
    with pytest.raises(BadEnvironment, match="SWITCH='perhaps'"):
        env_bool("SWITCH", True)


def test_numbers_have_the_type_of_their_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (env_number("NUMBER", 5.0), env_number("NUMBER", 200)) == (5.0, 200)
    monkeypatch.setenv("NUMBER", "2.5")
    assert env_number("NUMBER", 5.0) == 2.5
    with pytest.raises(BadEnvironment, match=r"NUMBER='2\.5' is not a number like 200"):
        env_number("NUMBER", 200)


@pytest.mark.parametrize("raw", ["0", "-1", "inf", "nan"])
def test_a_number_that_is_not_above_0_is_refused(raw: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBER", raw)
    with pytest.raises(BadEnvironment, match=f"NUMBER='{raw}' is not above 0"):
        env_number("NUMBER", 5.0)


def test_lists_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAMES", " a, b ,,")
    assert env_list("NAMES", "") == ["a", "b"]


def test_the_secret_is_made_once_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "secret_key"
    assert len(installation_secret(path)) >= 50
    assert installation_secret(path) == path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_installation_keeps_the_name_it_was_given_and_no_two_share_one(tmp_path: Path) -> None:
    name = installation_id(tmp_path / "installation")
    assert len(name) == 8
    assert installation_id(tmp_path / "installation") == name
    assert installation_id(tmp_path / "other") != name


def test_the_site_over_https_passes_djangos_deployment_checks(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(settings.BASE_DIR / "manage.py"), "check", "--deploy", "--fail-level", "WARNING"],
        env={**os.environ, "HTTPS": "true", "SECRET_KEY": "k9" * 13 + "q-x_Lr7T" * 4, "VAR_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
