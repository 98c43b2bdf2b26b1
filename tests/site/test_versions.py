import json
from importlib import metadata
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as site
from django.core.management import call_command

from tradingsite.management.commands.versions import import_name, look, required


@pytest.fixture
def three(settings: Any, tmp_path: Path) -> Path:
    """A site that needs three packages, of which one does not exist."""
    (tmp_path / "requirements.txt").write_text("# The site\ndjango>=5.2\nTA-Lib>=0.8 # indicators\nno-such-thing==1\n")
    settings.BASE_DIR = tmp_path
    return tmp_path


def test_every_package_of_the_requirements_is_looked_for() -> None:
    names = required(site.BASE_DIR / "requirements.txt")
    assert {"django", "alpaca-py", "TA-Lib", "xgboost-cpu", "lightgbm", "river", "shap", "optuna", "plotly"} <= set(
        names
    )


def test_every_package_of_the_requirements_has_a_module_to_import() -> None:
    packages = metadata.packages_distributions()
    modules = {name: import_name(name, packages) for name in required(site.BASE_DIR / "requirements.txt")}
    assert modules["TA-Lib"] == "talib"
    assert modules["scikit-learn"] == "sklearn"
    assert modules["xgboost-cpu"] == "xgboost"
    assert {module.partition(".")[0] for module in modules.values()} <= set(packages)


def test_a_missing_package_is_shown_and_ends_with_status_1(three: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        call_command("versions", "--json", str(three / "found.json"))
    assert ended.value.code == 1
    assert "not installed" in capsys.readouterr().out
    found = json.loads((three / "found.json").read_text())
    assert [each["ok"] for each in found] == [True, True, False]
    assert found[0]["version"] == metadata.version("django")
    assert found[0]["seconds"] > 0


def test_markdown_is_the_table_of_the_readme(three: Path) -> None:
    (three / "requirements.txt").write_text("django\n")
    out = StringIO()
    call_command("versions", "--markdown", stdout=out)
    assert out.getvalue() == f"| package | version |\n|---|---|\n| django | {metadata.version('django')} |\n"


def test_a_package_whose_import_fails_tells_the_error() -> None:
    found = look("django", "django.no_such_module")
    assert not found.ok
    assert found.error == "ModuleNotFoundError: No module named 'django.no_such_module'"
