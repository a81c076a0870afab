"""The names of log events, one constant each. docs/logs.md says what each means and what to do about it.

An event is written by `logs.event`; its name is the `event` of a JSON or logfmt line. Names stay as they are: alarms
are built on them.
"""

from __future__ import annotations

from typing import Final

PRINTED: Final = "printed"
OPTION_WITHOUT_EFFECT: Final = "option_without_effect"
RUNS_AS_ROOT: Final = "runs_as_root"
