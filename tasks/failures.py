"""Exceptions as they are stored: class, module and arguments, so that a client, Celery's too, can raise them again.

Called by outcome_meta.py. Exceptions that qworker shares with Celery are written under Celery's modules, because a
client rebuilds only what it has imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ..core import errors
from .reprs import short_repr
from .typed_json import EncodeError, dumps

_CELERYS: Final = "celery.exceptions"
_BILLIARDS: Final = "billiard.exceptions"

#: Where Celery keeps the exceptions that we have too. Not WorkerShutdown: Celery's would end the client that raises it.
WIRE_MODULES: Final[dict[type[BaseException], str]] = {
    errors.Ignore: _CELERYS,
    errors.Reject: _CELERYS,
    errors.Retry: _CELERYS,
    errors.MaxRetriesExceededError: _CELERYS,
    errors.NotRegistered: _CELERYS,
    errors.TaskRevokedError: _CELERYS,
    errors.TimeLimitExceeded: _BILLIARDS,
    errors.SoftTimeLimitExceeded: _BILLIARDS,
    errors.WorkerLostError: _BILLIARDS,
    EncodeError: "kombu.exceptions",
}

_WRAPPER: Final = ("UnpickleableExceptionWrapper", "celery.utils.serialization")


def describe(exc: BaseException) -> dict[str, Any]:
    """Return `{exc_type, exc_message, exc_module}` for `exc`, fit for JSON. Never raises."""
    kind = type(exc)
    if kind.__module__ == "builtins":
        return _description(kind.__qualname__, exc.args, "builtins")
    if kind in WIRE_MODULES:
        return _description(kind.__qualname__, exc.args, WIRE_MODULES[kind])
    nearest = _nearest_rebuildable(exc)
    if nearest is not None:
        return _description(type(nearest).__qualname__, nearest.args, type(nearest).__module__)
    wrapped = (kind.__module__, kind.__name__, _encodable(exc.args), short_repr(exc))
    return _description(_WRAPPER[0], wrapped, _WRAPPER[1])


def _description(name: str, args: Sequence[Any], module: str) -> dict[str, Any]:
    return {"exc_type": name, "exc_message": _encodable(args), "exc_module": module}


def _encodable(args: Sequence[Any]) -> list[Any]:
    return [arg if _is_encodable(arg) else short_repr(arg) for arg in args]


def _is_encodable(value: Any) -> bool:
    try:
        dumps(value)
    except EncodeError:
        return False
    return True


def _nearest_rebuildable(exc: BaseException) -> BaseException | None:
    """`exc` if it can be made again from its arguments, else the same as the nearest base class that can."""
    if _survives_pickling(exc):
        return exc
    for base in type(exc).__mro__[1:]:
        if base in (Exception, BaseException, object):
            return None
        try:
            simpler = base(*exc.args)
        except Exception:  # a constructor of the user's own
            continue
        if isinstance(simpler, BaseException) and _survives_pickling(simpler):
            return simpler
    return None


def _survives_pickling(exc: BaseException) -> bool:
    """Whether `exc` can be rebuilt from its `args`: what pickle tries is what a client will do."""
    import pickle

    try:
        pickle.loads(pickle.dumps(exc))
    except Exception:  # pickling calls the exception's own code, which may raise anything
        return False
    return True
