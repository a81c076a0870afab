"""What `-A` finds, and what it says when it finds nothing."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qworker.core.errors import AppImportError, ConfigError
from qworker.tasks.loader import find_app

APP = "from qworker import App\n"
_numbers = itertools.count()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], str]]:
    """Writes a module of this project and returns its name, which no other test has used."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before, prefix = set(sys.modules), f"proj{next(_numbers)}_"

    def write(path: str, text: str = "") -> str:
        file = tmp_path / (prefix + path)
        file.parent.mkdir(exist_ok=True, parents=True)
        file.write_text(text)
        module = prefix + path.removesuffix(".py").replace("/", ".")
        return module.removesuffix(".__init__")

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("text", "spec", "main"),
    [
        ("app = App('a')", "", "a"),
        ("celery = App('c')", "", "c"),
        ("celery = App('c')\napp = App('a')", "", "a"),
        ("shop = App('s')", "", "s"),
        ("shop = other = App('s')", "", "s"),
        ("app = 5\nshop = App('s')", "", "s"),
        ("app = App('a')\nshop = App('s')", ":shop", "s"),
        ("class Config:\n    app = App('inner')", ":Config.app", "inner"),
        ("shop = App('s')\nother = App('o')", ".other", "o"),
    ],
)
def test_the_app_is_found(project: Callable[[str, str], str], tmp_path: Path, text: str, spec: str, main: str) -> None:
    module = project("mod.py", APP + text)
    assert find_app(module + spec, str(tmp_path)).main == main


@pytest.mark.parametrize("submodule", ["celery", "app"])
def test_a_package_is_searched_for_its_usual_modules(
    project: Callable[[str, str], str], tmp_path: Path, submodule: str
) -> None:
    package = project("pkg/__init__.py", "")
    project(f"pkg/{submodule}.py", APP + "shop = App('inside')")
    assert find_app(package, str(tmp_path)).main == "inside"
    assert find_app(f"{package}.{submodule}", str(tmp_path)).main == "inside"


def test_the_working_directory_is_on_the_path(
    project: Callable[[str, str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = project("mod.py", APP + "app = App('here')")
    monkeypatch.chdir(tmp_path)
    assert find_app(module).main == "here"


def refused(spec: str, where: Path) -> AppImportError:
    with pytest.raises(AppImportError) as caught:
        find_app(spec, str(where))
    return caught.value


def test_a_missing_module_is_named_with_the_nearest_there_is(
    project: Callable[[str, str], str], tmp_path: Path
) -> None:
    module = project("warehouse.py", APP)
    error = refused(module.replace("warehouse", "warehuose"), tmp_path)
    assert f"did you mean {module!r}" in str(error)
    assert str(tmp_path) in str(error)
    assert error.details == ""


def test_a_missing_submodule_is_named_with_the_nearest_there_is(
    project: Callable[[str, str], str], tmp_path: Path
) -> None:
    package = project("pkg/__init__.py", "")
    project("pkg/warehouse.py", APP)
    assert "did you mean 'warehouse'" in str(refused(f"{package}.warehuose", tmp_path))


def test_a_file_name_is_answered_with_the_modules(project: Callable[[str, str], str], tmp_path: Path) -> None:
    module = project("mod.py", APP)
    assert f"leave out the .py: -A {module}" in str(refused(f"{module}.py", tmp_path))


def test_a_missing_attribute_is_answered_with_the_apps_there_are(
    project: Callable[[str, str], str], tmp_path: Path
) -> None:
    module = project("mod.py", APP + "shop = App('s')\nsettings = 5")
    assert "has no attribute 'shup'; it has shop" in str(refused(f"{module}:shup", tmp_path))
    assert "is a int, not an application" in str(refused(f"{module}:settings", tmp_path))


def test_several_apps_are_listed_for_a_choice(project: Callable[[str, str], str], tmp_path: Path) -> None:
    module = project("mod.py", APP + "one = App('1')\ntwo = App('2')")
    assert f"-A {module}:one, -A {module}:two" in str(refused(module, tmp_path))


def test_a_module_without_an_app_is_told_what_it_needs(project: Callable[[str, str], str], tmp_path: Path) -> None:
    module = project("mod.py", "x = 1")
    assert "app = qworker.App('name')" in str(refused(module, tmp_path))


@pytest.mark.parametrize("spec", ["", ":app"])
def test_an_empty_module_is_refused(tmp_path: Path, spec: str) -> None:
    assert "names no module" in str(refused(spec, tmp_path))


@pytest.mark.parametrize(
    ("text", "words", "last"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero", "ZeroDivisionError: division by zero"),
        ("import nothing_like_this", "No module named 'nothing_like_this'", "ModuleNotFoundError"),
        ("def f(:\n", "SyntaxError", "SyntaxError"),
        ("import sys; sys.exit(3)", "SystemExit: 3", "SystemExit: 3"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt", "KeyboardInterrupt"),
    ],
)
def test_a_module_that_fails_is_shown_with_its_own_part_of_the_traceback(
    project: Callable[[str, str], str], tmp_path: Path, text: str, words: str, last: str
) -> None:
    error = refused(project("mod.py", text + "\n"), tmp_path)
    assert words in str(error)
    assert "mod.py" in error.details
    assert last in error.details.strip().splitlines()[-1]
    assert "loader.py" not in error.details
    assert "importlib" not in error.details


@pytest.mark.parametrize(
    ("text", "words"),
    [("App(brokr='x')", "there is no setting 'brokr'"), ("App('a').task(quue='x')(len)", "did you mean 'queue'")],
)
def test_a_wrong_setting_in_the_module_is_a_mistake_of_the_configuration_and_not_of_the_import(
    project: Callable[[str, str], str], tmp_path: Path, text: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        find_app(project("mod.py", f"{APP}{text}\n"), str(tmp_path))
    assert not isinstance(caught.value, AppImportError)


def test_a_celery_app_is_recognised_and_promised(project: Callable[[str, str], str], tmp_path: Path) -> None:
    module = project("mod.py", "from celery import Celery\napp = Celery('c')")
    for spec in (module, f"{module}:app"):
        assert "is a Celery application" in str(refused(spec, tmp_path))
        assert "qworker[celery]" in str(refused(spec, tmp_path))


def test_a_failing_include_is_an_import_error_too(project: Callable[[str, str], str], tmp_path: Path) -> None:
    more = project("more.py", "1 / 0")
    module = project("mod.py", APP + f"app = App('a', include=[{more!r}])")
    app = find_app(module, str(tmp_path))
    with pytest.raises(AppImportError, match="ZeroDivisionError"):
        app.load_includes()
    with pytest.raises(AppImportError, match="there is no module 'proj_nothing'"):
        find_app(project("other.py", APP + "app = App('a')"), str(tmp_path)).load_includes(["proj_nothing"])
