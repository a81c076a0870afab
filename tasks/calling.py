"""Checks whether a call fits a function, at the caller, so that a wrong call is not found only in a worker.

Called by `Task.apply_async`. The usual case, positional arguments in the right number, is decided without `inspect`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MethodType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from inspect import Signature

_VAR_ARGUMENTS: Final = 0x04 | 0x08  # CO_VARARGS, CO_VARKEYWORDS


class Parameters:
    """The parameters of `function`; of a method, without `self`."""

    __slots__ = ("_function", "_most", "_needed", "_signature")

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._signature: Signature | None = None
        self._needed, self._most = _positional_range(function)

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Raise TypeError if the function cannot be called so."""
        if not kwargs and self._needed <= len(args) <= self._most:
            return
        if self._signature is None:
            self._signature = _signature_of(self._function)
        try:
            self._signature.bind(*args, **kwargs)
        except TypeError as problem:
            name = getattr(self._function, "__name__", "task")
            raise TypeError(f"{name}() {problem}") from None


def _positional_range(function: Callable[..., Any]) -> tuple[int, int]:
    """How many positional arguments are enough and how many are possible; (1, 0) leaves every call to `inspect`."""
    bound = isinstance(function, MethodType)
    plain = function.__func__ if isinstance(function, MethodType) else function
    code = getattr(plain, "__code__", None)
    if code is None or code.co_flags & _VAR_ARGUMENTS or code.co_kwonlyargcount or hasattr(plain, "__wrapped__"):
        return 1, 0
    most = code.co_argcount - bound
    return most - len(getattr(plain, "__defaults__", None) or ()), most


def _signature_of(function: Callable[..., Any]) -> Signature:
    import inspect

    try:
        return inspect.signature(function)
    except (TypeError, ValueError):  # a function without a signature, written in C: takes what it takes
        anything = [
            inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL),
            inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD),
        ]
        return inspect.Signature(anything)
