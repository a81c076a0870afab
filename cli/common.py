"""What the commands beside the worker share: their options, and the application or broker that these name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from ..core.errors import ConfigError
from .options import SHARED, shared_options

if TYPE_CHECKING:
    from ..tasks import App
    from ..transports import Transport


def command(
    name: str,
    params: Sequence[click.Parameter],
    callback: Callable[..., Any],
    *,
    help: str,
    kind: type[click.Command] = click.Command,
) -> click.Command:
    """A command with `params` and the shared options; `callback` gets a Target and the values of `params` by name."""

    def run(ctx: click.Context, /, **values: Any) -> Any:
        own = {key: value for key, value in values.items() if key not in SHARED}
        target = Target(_shared(ctx))
        try:
            return callback(target, **own)
        finally:
            target.close()

    return kind(
        name,
        params=[*params, *shared_options()],
        callback=click.pass_context(run),
        help=help,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )


class Target:
    """The application that `-A` names, or one made of `-b` and `--result-backend` alone."""

    def __init__(self, shared: Mapping[str, Any]) -> None:
        self._shared = shared
        self._app: App | None = None

    def option(self, name: str) -> str | None:
        """The value of a shared option, by its name in SHARED; flags are true or None."""
        value: str | None = self._shared[name]
        return value

    @property
    def is_quiet(self) -> bool:
        """Whether remarks are unwanted."""
        return bool(self._shared["quiet"])

    @property
    def has_app(self) -> bool:
        """Whether an application was named."""
        return bool(self._shared["app"])

    def app(self) -> App:
        """Load the application. Raises AppImportError, ConfigError, UsageError when nothing was named."""
        from .. import App
        from ..tasks import find_app

        self._change_directory()
        shared = self._shared
        if not shared["app"] and not shared["broker"] and not shared["result_backend"]:
            raise click.UsageError("no application and no broker; name one with -A or -b, for example: -A shop")
        app = find_app(shared["app"]) if shared["app"] else App("qworker.cli")
        if shared["config"]:
            app.config_from_object(shared["config"])
        urls = {"broker_url": shared["broker"], "result_backend": shared["result_backend"]}
        app.conf.update({name: url for name, url in urls.items() if url})
        self._app = app
        return app

    def close(self) -> None:
        """Close the connections of the application that was loaded, if any."""
        if self._app is not None:
            from ..results import close_store_of

            self._app.close()
            close_store_of(self._app)

    @contextmanager
    def broker(self, app: App, queues: Sequence[str] = ()) -> Iterator[Transport]:
        """A connection to the application's broker, closed at the end. Raises ConfigError or TransportError.

        `queues` are those that it is about, if it warns of them.
        """
        from ..transports import broker_options, open_transport

        transport = open_transport(app.conf.broker_url, options=broker_options(app.conf), queues=queues)
        try:
            transport.connect()
            yield transport
        finally:
            transport.close()

    def remark(self, text: str) -> None:
        """Say something beside the result, on stderr, unless quiet."""
        if not self.is_quiet:
            click.echo(f"qworker: {text}", err=True)

    def _change_directory(self) -> None:
        workdir = self._shared["workdir"]
        if workdir:
            try:
                os.chdir(workdir)
            except OSError as error:
                raise ConfigError(f"--workdir {workdir}: {error.strerror}") from None


def chosen_queues(app: App, wanted: Sequence[str], excluded: Sequence[str] = ()) -> list[str]:
    """The queues that `-Q` names, else the application's; without those that `-X` names."""
    return [name for name in (wanted or app.queue_names()) if name not in excluded]


def is_confirmed(question: str) -> bool:
    """Ask on stderr."""
    try:
        return click.confirm(question, err=True)
    except click.Abort:  # no terminal to ask, or Ctrl-C: then no
        click.echo(err=True)
        return False


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns side by side, numbers to the right; the last column is not padded."""
    texts = [list(head), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[at]) for row in texts) for at in range(len(head))]
    numeric = [bool(rows) and all(isinstance(row[at], int | float) for row in rows) for at in range(len(head))]
    lines = []
    for row in texts:
        cells = [cell.rjust(w) if right else cell.ljust(w) for cell, w, right in zip(row, widths, numeric, strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _shared(ctx: click.Context) -> dict[str, Any]:
    """What stands after the command's name, else what stands before it (or in the environment)."""
    values: dict[str, Any] = dict.fromkeys(SHARED)
    contexts = []
    current: click.Context | None = ctx
    while current is not None:
        contexts.append(current)
        current = current.parent
    for context in reversed(contexts):
        values.update({name: context.params[name] for name in SHARED if context.params.get(name)})
    return values
