from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qworker import App, ConfigError, NotRegistered, Task, current_app, shared_task


def plain_function(x: int = 0) -> int:
    return x


def test_settings_may_be_given_when_the_app_is_made() -> None:
    app = App("t", broker="redis://h", backend="redis://h/1", include=["a"], task_default_queue="q")
    assert (app.conf.broker_url, app.conf.result_backend) == ("redis://h", "redis://h/1")
    assert (app.conf.include, app.conf.task_default_queue, app.main) == (["a"], "q", "t")


def test_without_a_broker_there_is_a_file() -> None:
    assert App("t").conf.broker_url == "sqlite:///qworker.db"


def test_wrong_settings_are_all_reported() -> None:
    with pytest.raises(ConfigError) as caught:
        App("t", brokr="x", task_acks_late="perhaps")
    assert len(caught.value.problems) == 2


def test_a_task_is_named_after_module_and_function() -> None:
    assert App("t").task(plain_function).name == f"{__name__}.plain_function"
    assert App("t").task(name="other")(plain_function).name == "other"


@pytest.mark.parametrize(("main", "name"), [("'shop'", "shop.add"), ("None", "script.add")])
def test_in_a_script_a_task_is_named_after_the_app_or_the_file(tmp_path: Path, main: str, name: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"import qworker\napp = qworker.App({main})\n@app.task\ndef add(): ...\nprint(add.name)\n")
    assert subprocess.check_output([sys.executable, str(script)], text=True).strip() == name


def test_the_same_function_is_one_task() -> None:
    app = App("t")
    assert app.task(plain_function) is app.task(plain_function)
    assert list(app.tasks) == [f"{__name__}.plain_function"]


def test_an_unknown_task_is_not_registered_and_the_nearest_is_named() -> None:
    app = App("t")
    app.task(name="shop.charge")(plain_function)
    with pytest.raises(NotRegistered, match=r"'shop\.chrage' is not registered; did you mean 'shop\.charge'"):
        app.tasks["shop.chrage"]
    assert app.tasks.get("nothing") is None


def test_the_current_app_is_the_last_made_unless_one_was_chosen() -> None:
    with pytest.raises(ConfigError, match="no application"):
        current_app.conf  # noqa: B018 - the look is the test
    first, second = App("first"), App("second")
    assert current_app.get() is second
    first.set_default()
    App("third")
    assert (current_app.main, current_app.get()) == ("first", first)


def test_a_shared_task_belongs_to_every_app(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qworker.tasks.current._makers", [])
    before = App("before")

    @shared_task(queue="hipri")
    def double(x: int) -> int:
        return 2 * x

    after = App("after", task_always_eager=True)
    name = f"{__name__}.double"
    assert (before.tasks[name].app, after.tasks[name].app) == (before, after)
    assert (double(4), double.delay(4).get(), double.queue, double.name) == (8, 8, "hipri", name)


def test_a_shared_task_may_be_made_without_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qworker.tasks.current._makers", [])
    shared = shared_task(plain_function)
    App("t")
    assert shared(3) == 3


def test_annotations_change_tasks_by_name_and_all_by_star() -> None:
    app = App("t", task_annotations={"*": {"rate_limit": "1/s"}, "special": {"time_limit": 5, "rate_limit": "2/s"}})
    app.task(name="special")(plain_function)
    app.task(name="other")(plain_function)
    assert (app.tasks["special"].time_limit, app.tasks["special"].rate_limit) == (5, "2/s")
    assert (app.tasks["other"].time_limit, app.tasks["other"].rate_limit) == (None, "1/s")


def test_settings_come_from_an_object_with_what_it_defines_for_itself_passed_over() -> None:
    app = App("t")
    source = SimpleNamespace(task_default_queue="q", os=sys, helper=plain_function, Kind=Task, CONSTANT=1, _own=2)
    app.config_from_object(source)
    assert app.conf.task_default_queue == "q"


def test_settings_come_from_a_module_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "settings_by_name.py").write_text("import os\ntimezone = 'Europe/Berlin'\n")
    monkeypatch.syspath_prepend(tmp_path)
    app = App("t")
    app.config_from_object("settings_by_name")
    assert app.conf.timezone == "Europe/Berlin"
    with pytest.raises(ConfigError, match="'no_such_settings' cannot be imported"):
        app.config_from_object("no_such_settings")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"task_defalt_queue": "q"}, "did you mean 'task_default_queue'"),
        (SimpleNamespace(task_defalt_queue="q"), "did you mean 'task_default_queue'"),
        (SimpleNamespace(CELERYD_CONCURRENCY=4), "it is called worker_concurrency now"),
        (SimpleNamespace(BROKER_URL="x"), "it is called broker_url now"),
    ],
)
def test_misspelt_and_old_settings_in_an_object_are_refused(source: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        App("t").config_from_object(source)


def test_a_namespace_picks_settings_out_of_a_projects_own() -> None:
    app = App("t")
    source = SimpleNamespace(CELERY_TASK_DEFAULT_QUEUE="q", DEBUG=True, CELERY_TIMEZONE="UTC")
    app.config_from_object(source, namespace="CELERY")
    assert app.conf.task_default_queue == "q"
    with pytest.raises(ConfigError, match="task_defalt_queue"):
        app.config_from_object(SimpleNamespace(CELERY_TASK_DEFALT_QUEUE="q"), namespace="CELERY")


def test_the_queues_of_an_app_are_those_its_tasks_and_routes_name() -> None:
    app = App("t", task_routes=[{"a.*": "routed"}, {"b": {"queue": "other"}}])
    app.task(name="x", queue="mine")(plain_function)
    app.task(name="y")(plain_function)
    assert app.queue_names() == ["celery", "mine", "routed", "other"]


def test_declared_queues_are_the_only_ones() -> None:
    app = App("t", task_queues=[SimpleNamespace(name="one"), "two"])
    app.task(name="x", queue="mine")(plain_function)
    assert app.queue_names() == ["one", "two"]
    app.conf.task_queues = {"three": {}}
    assert app.queue_names() == ["three"]


def test_discovered_task_modules_are_imported_by_the_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package, has_tasks in (("disc_one", True), ("disc_two", False)):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
        if has_tasks:
            (tmp_path / package / "tasks.py").write_text(
                "from qworker import shared_task\n@shared_task(name='discovered')\ndef f(): ...\n"
            )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("qworker.tasks.current._makers", [])
    app = App("t")
    app.autodiscover_tasks(["disc_one", "disc_two"])
    app.load_includes()
    assert "discovered" in app.tasks
    with pytest.raises(ConfigError, match="no_such_package"):
        app.autodiscover_tasks(["no_such_package"])


def test_what_a_call_returns_is_an_async_result_without_loading_results_before(tmp_path: Path) -> None:
    code = (
        "import sys, qworker\n"
        f"app = qworker.App('t', broker='sqlite:///{tmp_path}/q.db')\n"
        "assert 'qworker.results' not in sys.modules\n"
        "print(type(app.send_task('x', task_id='i')).__name__, app.AsyncResult('j').id)\n"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["AsyncResult", "j"]
