from __future__ import annotations

import json
import os
from datetime import timedelta

import pytest
from celery.app.defaults import _TO_NEW_KEY, DEFAULTS

from qworker import ConfigError
from qworker.core.settings import Settings
from qworker.core.settings_old_names import modern_name
from qworker.core.settings_table import TABLE

DIFFERENT_ON_PURPOSE = {
    *("broker_url", "task_acks_late", "task_create_missing_queues", "timezone"),
    "worker_hijack_root_logger",
}


def test_every_setting_of_celery_exists() -> None:
    assert set(DEFAULTS) <= set(TABLE)


def test_defaults_are_celerys_except_where_the_table_says_so() -> None:
    def plain(value: object) -> object:
        if isinstance(value, timedelta):
            return value.total_seconds()
        return list(value) if isinstance(value, tuple) else value

    different = {name for name, default in DEFAULTS.items() if TABLE[name].default != plain(default)}
    assert different == DIFFERENT_ON_PURPOSE


@pytest.mark.parametrize(("old", "new"), sorted(_TO_NEW_KEY.items()))
def test_an_old_name_of_celery_leads_to_the_new_one(old: str, new: str) -> None:
    assert modern_name(old, TABLE) == new


def test_every_default_passes_its_own_check() -> None:
    Settings({name: option.default for name, option in TABLE.items()})


def test_attributes_and_items_are_the_same_settings() -> None:
    settings = Settings(task_default_queue="a")
    settings["task_default_queue"] = "b"
    assert settings.task_default_queue == "b"
    settings.task_default_queue = "c"
    assert settings["task_default_queue"] == "c"


def test_one_update_reports_all_mistakes_and_changes_nothing() -> None:
    settings = Settings()
    with pytest.raises(ConfigError) as caught:
        settings.update({"task_defalt_queue": "x", "BROKER_URL": "redis://"}, worker_concurrency=0, timezone="UTC")
    assert caught.value.problems == (
        "there is no setting 'task_defalt_queue'; did you mean 'task_default_queue'?",
        "BROKER_URL is the old name of a setting; it is called broker_url now",
        "worker_concurrency=0 must be a whole number above 0, or 'auto'",
    )
    assert settings.is_default("timezone")


@pytest.mark.parametrize(
    ("name", "given", "kept"),
    [
        ("result_expires", timedelta(hours=1), 3600.0),
        ("result_expires", 60, 60),
        ("result_expires", None, None),
        ("imports", "tasks", ["tasks"]),
        ("imports", ("a", "b"), ["a", "b"]),
        ("task_acks_late", "false", False),
        ("task_acks_late", 1, True),
        ("worker_concurrency", "4", 4),
        ("worker_concurrency", "auto", "auto"),
        ("worker_max_memory_per_child", 2048.0, 2048),
        ("broker_connection_max_retries", None, None),
        ("accept_content", {"json", "application/x-yaml"}, ["application/x-yaml", "json"]),
        ("timezone", "Europe/Berlin", "Europe/Berlin"),
        ("worker_soft_shutdown_timeout", "2.5", 2.5),
    ],
)
def test_values_are_converted(name: str, given: object, kept: object) -> None:
    assert Settings({name: given})[name] == kept


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("result_expires", -1, "must not be negative"),
        ("result_expires", "soon", "must be a number of seconds or a timedelta"),
        ("result_expires", True, "must be a number"),
        ("task_acks_late", "perhaps", "must be True or False"),
        ("worker_pool", "preforc", "did you mean 'prefork'"),
        ("worker_pool", ["prefork"], "must be one of"),
        ("accept_content", ["jsn"], "names the unknown serializer 'jsn'; did you mean 'json'?"),
        ("timezone", "Europe/Atlantis", "names the unknown time zone"),
        ("broker_transport_options", "x", "must be a dict"),
        ("imports", [1], "must be a list of strings"),
        ("worker_prefetch_multiplier", -1, "must be 0 or more"),
        ("worker_prefetch_multiplier", True, "must be a whole number"),
        ("worker_max_message_bytes", 5, "must be 1024 or more"),
        ("task_protocol", 1, "must be one of 2"),
        ("worker_timer_precision", float("nan"), "must be a number"),
        ("broker_url", None, "must be a string"),
    ],
)
def test_a_wrong_value_is_refused_in_words(name: str, value: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        Settings({name: value})
    assert caught.value.problems[0].startswith(name + "=")


def test_a_refused_url_is_not_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        Settings(broker_url=["redis://:secret@host"])
    assert "secret" not in str(caught.value)


def test_the_settings_show_no_values() -> None:
    assert "secret" not in repr(Settings(broker_url="redis://:secret@host"))


def test_an_unknown_name_is_an_attribute_error_with_the_nearest_name() -> None:
    settings = Settings()
    with pytest.raises(AttributeError, match="did you mean 'broker_url'"):
        settings.broker_ulr  # noqa: B018 - the look is the test
    with pytest.raises(KeyError):
        settings["broker_ulr"]
    assert settings.get("broker_ulr", 3) == 3
    assert not hasattr(settings, "broker_ulr")


def test_frozen_settings_refuse_changes() -> None:
    settings = Settings().freeze()
    with pytest.raises(ConfigError, match="frozen"):
        settings.timezone = "UTC"
    assert settings.is_frozen


def test_freeze_finds_what_only_the_whole_can_tell() -> None:
    with pytest.raises(ConfigError, match="task_soft_time_limit=9 is above task_time_limit=5"):
        Settings(task_soft_time_limit=9, task_time_limit=5).freeze()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_pickle_is_refused_for_root_unless_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(accept_content=["json", "pickle"])
    monkeypatch.delenv("C_FORCE_ROOT", raising=False)
    with pytest.raises(ConfigError, match="C_FORCE_ROOT"):
        settings.freeze()
    monkeypatch.setenv("C_FORCE_ROOT", "1")
    settings.freeze()


def test_a_default_is_not_changed_by_what_somebody_adds_in_place() -> None:
    Settings().broker_transport_options["lease_timeout"] = 5
    assert Settings().broker_transport_options == {}


def test_plain_settings_travel_to_another_process_as_json() -> None:
    settings = Settings(
        result_expires=timedelta(minutes=2),
        task_routes=lambda *_: None,
        broker_transport_options={"lease_timeout": timedelta(seconds=3), "callback": print, "hosts": ("a", "b")},
        beat_schedule={"nightly": {"task": "a", "schedule": object()}},
    )
    there = Settings(json.loads(json.dumps(settings.as_plain_dict())))
    assert there.result_expires == 120.0
    assert there.task_routes is None
    assert there.broker_transport_options == {"lease_timeout": 3.0, "hosts": ["a", "b"]}
    assert there.beat_schedule == {"nightly": {"task": "a"}}
    assert there.result_backend_max_retries == float("inf")
