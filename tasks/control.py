"""What can be done about tasks that have been sent: `app.control`. Any thread; over the App's own connections.

`revoke` removes what waits for its time on the broker. Reaching what waits in a queue or runs needs workers that
listen, which this version's do not.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .handles import store_metas
from .outcome_meta import revoked_meta

if TYPE_CHECKING:
    from .app import App
    from .producer import Producer


class Control:
    """Orders about tasks of one application."""

    def __init__(self, app: App, producer: Producer) -> None:
        self._app = app
        self._producer = producer

    def revoke(self, task_id: str | Iterable[Any], *, terminate: bool = False, **options: Any) -> int:
        """Delete the delayed messages (`eta`, `countdown`, a waiting retry) of one or several tasks; return how many.

        Their results become REVOKED, when the application keeps results. Tasks that wait in a queue or run are not
        reached: they run to their end. `terminate=True` therefore raises NotImplementedError; Celery's other options
        are accepted. Raises TransportError, after which some may be gone, and ResultStoreError, after which all are.
        """
        if terminate:
            raise NotImplementedError(
                "revoke(terminate=True) is not supported yet: a task that runs is not reached; give it a time limit"
            )
        unknown = options.keys() - _OPTIONS_OF_CELERY
        if unknown:
            raise TypeError(f"revoke() has no option {sorted(unknown)[0]!r}")
        ids = [task_id] if isinstance(task_id, str) else [str(one) for one in task_id]
        removed = self._producer.discard_delayed(list(dict.fromkeys(ids)))
        if removed and self._app.conf.result_backend:
            store_metas(self._app, [(one, revoked_meta(one, "revoked")) for one in removed])
        return len(removed)


_OPTIONS_OF_CELERY = frozenset({"destination", "signal", "reply", "timeout", "limit", "callback", "connection"})
