"""Settings: one flat set of checked values, with Celery's lower-case names.

An application owns one (`app.conf`) and fills it; a worker freezes it before it starts. Names, defaults and what a
value may be stand in settings_table.py. Every mistake in one `update` is reported at once, in one ConfigError.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from copy import copy
from datetime import date, timedelta
from typing import Any

from .errors import ConfigError
from .settings_old_names import modern_name
from .settings_table import TABLE
from .settings_values import CONTENT_TYPES, nearest

_UNSENDABLE = object()


class Settings:
    """All settings of one application, by attribute (`conf.timezone`) or by item (`conf["timezone"]`).

    Times are kept as seconds. Reading is safe from any thread; changes belong to the thread that sets the application
    up.
    """

    # The values live in the object's own dict: reading one costs no more than any attribute, and publishing reads a
    # dozen.
    __slots__ = ("__dict__", "_changed", "_frozen")

    def __init__(self, values: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        self._init_defaults()
        self.update(values or {}, **more)

    def update(self, values: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        """Take over all of `values` and `more`, or none of them: ConfigError lists every mistake."""
        self._refuse_if_frozen()
        converted: dict[str, Any] = {}
        problems = []
        for name, value in {**(values or {}), **more}.items():
            try:
                converted[name] = _convert(name, value)
            except ValueError as problem:
                problems.append(str(problem))
        if problems:
            raise ConfigError(*problems)
        self.__dict__.update(converted)
        self._changed.update(converted)

    def freeze(self) -> Settings:
        """Check what only the whole can tell, then refuse every later change. Raises ConfigError with all problems."""
        problems = self.problems()
        if problems:
            raise ConfigError(*problems)
        object.__setattr__(self, "_frozen", True)
        return self

    @property
    def is_frozen(self) -> bool:
        """Whether `freeze` has been called."""
        return bool(self._frozen)

    def problems(self) -> list[str]:
        """What is wrong with the settings as a whole, one sentence each; empty when nothing is."""
        found = []
        soft, hard = self.task_soft_time_limit, self.task_time_limit
        if soft and hard and soft > hard:
            found.append(f"task_soft_time_limit={soft} is above task_time_limit={hard}; it would never be reached")
        if self._accepts_pickle() and os.geteuid() == 0 and not os.environ.get("C_FORCE_ROOT"):
            found.append(
                "accept_content holds 'pickle' and this process is root: whoever can write to the queue owns the "
                "machine; run as another user (--uid), or set C_FORCE_ROOT to accept the risk"
            )
        return found

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of `name`, or `default` if there is no such setting."""
        return self.__dict__.get(name, default)

    def is_default(self, name: str) -> bool:
        """Whether nobody has set `name`."""
        return name not in self._changed

    def as_plain_dict(self) -> dict[str, Any]:
        """Every setting as plain JSON data, fit for `Settings(...)` in another process.

        A timedelta becomes seconds, a date its ISO text, a tuple or set a list. What JSON has no word for (a
        function, a schedule object) is left out, from dicts and lists too; a setting that is itself such a thing
        keeps its default there.
        """
        plain = {name: _plain(value) for name, value in self.__dict__.items()}
        return {name: value for name, value in plain.items() if value is not _UNSENDABLE}

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(_unknown(name))

    def __setattr__(self, name: str, value: Any) -> None:
        self.update({name: value})

    def __getitem__(self, name: str) -> Any:
        try:
            return self.__dict__[name]
        except KeyError:
            raise KeyError(_unknown(name)) from None

    def __setitem__(self, name: str, value: Any) -> None:
        self.update({name: value})

    def __contains__(self, name: object) -> bool:
        return name in self.__dict__

    def __iter__(self) -> Iterator[str]:
        return iter(self.__dict__)

    def __repr__(self) -> str:
        """Names only: a value may hold a password."""
        return f"Settings(changed={sorted(self._changed)})"

    def _init_defaults(self) -> None:
        # Past our own __setattr__, which takes every name for a setting's. Copies: a default must stay a default
        # when somebody adds to conf.broker_transport_options in place.
        object.__setattr__(self, "_frozen", False)
        object.__setattr__(self, "_changed", set())
        self.__dict__.update({name: copy(option.default) for name, option in TABLE.items()})

    def _refuse_if_frozen(self) -> None:
        if self._frozen:
            raise ConfigError("the settings are frozen: change them before the worker starts, not while it runs")

    def _accepts_pickle(self) -> bool:
        return not {"pickle", CONTENT_TYPES["pickle"]}.isdisjoint(self.accept_content)


def is_setting(name: str) -> bool:
    """Whether `name` is the name of a setting."""
    return name in TABLE


def _convert(name: str, value: Any) -> Any:
    option = TABLE.get(name)
    if option is None:
        raise ValueError(_unknown(name))
    try:
        return option.convert(value)
    except ValueError as problem:
        raise ValueError(f"{name}={_shown(name, value)} {problem}") from None


def _unknown(name: str) -> str:
    modern = modern_name(name, TABLE) if name != name.lower() else None
    if modern is not None:
        return f"{name} is the old name of a setting; it is called {modern} now"
    return f"there is no setting {name!r}" + nearest(name.lower(), TABLE)


def _shown(name: str, value: Any) -> str:
    secret = any(word in name for word in ("url", "password", "key", "backend"))
    return "…" if secret else repr(value)[:80]


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Mapping):
        items = ((key, _plain(item)) for key, item in value.items() if isinstance(key, str | int | float))
        return {key: item for key, item in items if item is not _UNSENDABLE}
    if isinstance(value, list | tuple | set | frozenset):
        return [item for item in map(_plain, value) if item is not _UNSENDABLE]
    return _UNSENDABLE
