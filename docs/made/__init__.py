"""What the code knows better than any page: made when the site is built. Called by `conf.py` and by the tests.

A page says `<!-- made: settings broker -->`; the first word is a key of MAKERS, the rest goes to its function.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from . import celery_options, commands, phases, settings, task_options

MAKERS: Final[dict[str, Callable[..., str]]] = {
    "settings": settings.section,
    "settings-elsewhere": settings.elsewhere,
    "celery-options": celery_options.fates,
    "options": commands.options,
    "commands": commands.commands,
    "task-options": task_options.options,
    "phases": phases.phases_table,
    "exit-codes": phases.exit_codes,
}
_MARK: Final = re.compile(r"^<!-- made: ([\w-]+)((?: [\w-]+)*) -->$", re.MULTILINE)


def fill(page: str) -> str:
    """Return the page with every mark replaced by what it stands for. KeyError for a mark that is unknown."""
    return _MARK.sub(lambda mark: MAKERS[mark[1]](*mark[2].split()), page)
