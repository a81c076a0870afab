"""`qworker systemd install|print`: a unit with which systemd runs a worker, made from the options of that worker.

The text comes from `systemd.units`; here the options become words, numbers and paths, and files are written.
"""

from __future__ import annotations

import os
import pwd
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from ..core.errors import ConfigError
from ..core.urls import redact
from ..systemd import Service, service_unit, shipped, template_unit
from .common import Target
from .common import command as make_command
from .options import SHARED, worker_options

_RAW: Final = "qworker.systemd.raw"
_SHARED_FILES: Final = ("qworker.slice", "qworker.target")
_SOFT_S: Final = 25.0
_HEAD: Final = "Made by `qworker systemd`. Changes belong into a drop-in (`systemctl edit`): then it can be made anew."
#: A unit's name, which is a folder's as well; what limits memory; a user or a group.
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_SIZE: Final = re.compile(r"[0-9]+[KMGT]?|[0-9]+(\.[0-9]+)?%|infinity")
_USER: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\$?")
#: What a service manager does itself, and better.
_NOT_HERE: Final = {
    "detach": "systemd keeps the worker in the background",
    "pidfile": "systemd knows the process without a file",
    "uid": "say --run-as USER",
    "gid": "say --run-as USER:GROUP",
}


class _Command(click.Command):
    """Remembers the worker's options as they were typed: a unit says `-c auto`, not today's number of CPUs."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse twice: once for the words, once for checked values."""
        ctx.meta[_RAW], _, _ = self.make_parser(ctx).parse_args(list(args))
        return super().parse_args(ctx, args)


@dataclass(frozen=True, slots=True)
class _Made:
    """The unit, and what else has to be there."""

    name: str
    text: str
    env_file: str
    is_template: bool


def _print(target: Target, **given: Any) -> None:
    click.echo(_make(target, given).text, nl=False)


def _install(target: Target, directory: str | None, force: bool, dry_run: bool, **given: Any) -> None:
    made = _make(target, given)
    folder = Path(directory) if directory else _folder(given["of_user"])
    files = {made.name: made.text, **{name: shipped(name) for name in _SHARED_FILES}}
    _refuse_to_overwrite(folder / made.name, made.text, force)
    for name, text in files.items():
        _write(target, folder / name, text, dry_run=dry_run, is_ours=name == made.name or force)
    if dry_run:
        click.echo(f"\n# {folder / made.name}\n{made.text}", nl=False)
    else:
        click.echo(_next_steps(made, given["of_user"], is_elsewhere=bool(directory)))


def _make(target: Target, given: dict[str, Any]) -> _Made:
    context = click.get_current_context()
    raw = context.meta[_RAW]
    for name, why in _NOT_HERE.items():
        if name in raw:
            raise click.UsageError(f"--{name} does not belong into a unit: {why}", context)
    command, bin_folder = _executable()
    workdir = os.path.abspath(target.option("workdir") or ".")
    user, group = ("", "") if given["of_user"] else _run_as(given["run_as"], workdir)
    if given["template"]:
        if any(option.name in raw for option in worker_options()):
            raise click.UsageError("the workers' options stand in the files of the instances, not in the template")
        text = template_unit(command, bin_folder, _HEAD, user if given["run_as"] else "", group)
        return _Made("qworker@.service", text, "/etc/qworker/INSTANCE.env", True)
    app = target.option("app")
    if not app:
        raise click.UsageError("no application; name it with -A, or write one unit for many with --template", context)
    name = given["unit_name"] or app.partition(":")[0].rpartition(".")[2]
    _check(_NAME, name, "--name", "letters of ASCII, digits, and . _ - behind the first")
    _check(_SIZE, given["memory_max"] or "0", "--memory-max", "a number with K, M, G or T, a percentage, or infinity")
    env_file = _whole(given["env_file"]) if given["env_file"] else _env_file(name, given["of_user"])
    soft_s, deaf_s = _times(target, given)
    service = Service(
        name=name,
        command=[*command, *_worker_words(target, raw, env_file)],
        bin_folder=bin_folder,
        workdir=workdir,
        env_file=env_file,
        interpreter=os.path.realpath(sys.executable),
        user=user,
        group=group,
        soft_s=soft_s,
        deaf_s=deaf_s,
        memory_max=given["memory_max"] or "",
    )
    if user not in ("", "root") and any(place.startswith("/root/") for place in service.places):
        target.remark(f"what lies below /root cannot be read by {user}: the worker will not start")
    return _Made(f"qworker-{name}.service", service_unit(service, _HEAD), env_file, False)


def _executable() -> tuple[list[str], str]:
    """This interpreter's `qworker`, and the folder it is in."""
    folder = os.path.dirname(os.path.abspath(sys.executable))
    script = os.path.join(folder, "qworker")
    return ([script] if os.access(script, os.X_OK) else [os.path.abspath(sys.executable), "-m", "qworker"]), folder


def _run_as(wanted: str | None, workdir: str) -> tuple[str, str]:
    """Who the worker runs as: who was named, who called sudo, who calls; root only when it was named."""
    if wanted:
        user, _, group = wanted.partition(":")
        for one in (user, group or user):
            _check(_USER, one, "--run-as", "names or numbers of a user and a group")
        return user, group
    if os.geteuid() == 0:
        user = os.environ.get("SUDO_USER", "") or _owner(workdir)
    else:
        user = pwd.getpwuid(os.geteuid()).pw_name
    if user in ("", "root"):
        raise click.UsageError(
            "who should the worker run as? say --run-as USER (a worker as root runs every task as root; "
            "--run-as root says that you mean it)"
        )
    return user, ""


def _check(wanted: re.Pattern[str], value: str, option: str, hint: str) -> None:
    """Raises UsageError for what systemd would not read as one value."""
    if not wanted.fullmatch(value):
        raise click.UsageError(f"{option} {value!r}: give {hint}", click.get_current_context())


def _owner(folder: str) -> str:
    try:
        return Path(folder).owner()
    except (OSError, KeyError):
        return ""


def _whole(path: str) -> str:
    """The whole path; one below the home of whom it is read for (`%h/`) is one."""
    return path if path.startswith("%h/") else os.path.abspath(path)


def _env_file(name: str, of_user: bool) -> str:
    return f"%h/.config/qworker/{name}.env" if of_user else f"/etc/qworker/{name}.env"


def _times(target: Target, given: dict[str, Any]) -> tuple[float, float]:
    """The soft and the deaf time-out: from the command line, the application's settings, or the defaults."""
    soft_s, deaf_s = given["soft_shutdown_timeout"], 30.0
    if not given["no_import"]:
        conf = target.app().conf
        deaf_s = conf.worker_deaf_timeout
        soft_s = soft_s if soft_s is not None else (conf.worker_soft_shutdown_timeout or None)
    return (_SOFT_S if soft_s is None else soft_s), deaf_s


def _worker_words(target: Target, raw: dict[str, Any], env_file: str) -> list[str]:
    """The worker's command line: what was typed for it, the shared options first."""
    words = []
    for option in worker_options():
        name = option.name or ""
        value = target.option(name) if name in SHARED else raw.get(name)
        if name in ("workdir", "soft_shutdown_timeout") or value in (None, False):
            continue  # the first is WorkingDirectory=, the second stands beside the number that must fit it
        _refuse_secrets(option.opts[-1], str(value), env_file)
        flag = option.opts[0] if len(option.opts[0]) == 2 else option.opts[-1]
        words += [flag] if option.is_flag else [flag, str(value)]
    return words


def _refuse_secrets(flag: str, value: str, env_file: str) -> None:
    if flag in ("--broker", "--result-backend") and redact(value) != value:
        variable = f"QWORKER_{flag[2:].replace('-', '_').upper()}"
        raise click.UsageError(
            f"{flag} holds a password, and everybody can read a unit; write {variable}=… into {env_file} "
            "(mode 0600) instead"
        )


def _folder(of_user: bool) -> Path:
    if not of_user:
        return Path("/etc/systemd/system")
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd/user"


def _refuse_to_overwrite(path: Path, text: str, force: bool) -> None:
    found = _read(path)
    if found is not None and found != text and not force:
        raise click.ClickException(
            f"{path} is there and differs from what would be written (see `qworker systemd print` with the same "
            "options); nothing was changed, --force writes over it"
        )


def _write(target: Target, path: Path, text: str, *, dry_run: bool, is_ours: bool) -> None:
    found = _read(path)
    if found == text:
        click.echo(f"unchanged {path}")
    elif found is not None and not is_ours:
        click.echo(f"kept {path}, which somebody has changed")
    elif dry_run:
        click.echo(f"would write {path}")
    else:
        _put(path, text)
        click.echo(f"wrote {path}")


def _read(path: Path) -> str | None:
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _put(path: Path, text: str) -> None:
    """Write as a whole: systemd never reads half a unit."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(text, "utf-8")
        fresh.chmod(0o644)
        fresh.replace(path)
    except OSError as error:
        with suppress(OSError):
            fresh.unlink()
        raise click.ClickException(
            f"cannot write {path}: {error.strerror}; run it as root, or with --user for a unit of your own, "
            "or use `qworker systemd print`"
        ) from None


def _next_steps(made: _Made, of_user: bool, *, is_elsewhere: bool) -> str:
    systemctl = "systemctl --user" if of_user else "systemctl"
    unit = "qworker@INSTANCE" if made.is_template else made.name.removesuffix(".service")
    steps = [
        f"{systemctl} daemon-reload",
        f"{systemctl} enable --now {unit}",
        f"{systemctl} status {unit}",
    ]
    if of_user:
        steps.append("loginctl enable-linger    # or it ends when you log out")
    lines = ["", "next:"] if not is_elsewhere else ["", "when it is where systemd looks for it:"]
    env_file = made.env_file.replace("%h", "~")
    return "\n".join([*lines, *(f"  {step}" for step in steps), f"settings and secrets: {env_file} (optional)"])


def _options() -> Sequence[click.Parameter]:
    flag = {"is_flag": True}
    return [
        click.Option(["--name", "unit_name"], metavar="NAME", help="qworker-NAME.service (the application's name)."),
        click.Option(["--template"], **flag, help="qworker@.service instead: one file, an instance per worker."),
        click.Option(["--user", "of_user"], **flag, help="A unit of your own systemd, without root."),
        click.Option(["--run-as"], metavar="USER[:GROUP]", help="Who the worker runs as (you)."),
        click.Option(["--env-file"], metavar="FILE", help="Settings and secrets (/etc/qworker/NAME.env)."),
        click.Option(["--memory-max"], metavar="SIZE", help="MemoryMax= of the whole worker, for example 2G."),
        click.Option(["--no-import"], **flag, help="Do not import the application for its time-outs."),
        *(option for option in worker_options() if option.name not in SHARED),
    ]


def _choose(ctx: click.Context) -> None:
    if ctx.invoked_subcommand is None:
        raise click.UsageError("say what to do with the unit: install or print", ctx)


def _group() -> click.Group:
    group = click.Group(
        "systemd",
        callback=click.pass_context(_choose),
        invoke_without_command=True,
        subcommand_metavar="install|print [OPTIONS]",
        help="A unit with which systemd runs a worker: give it the options that the worker is to have.",
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )
    install = [
        click.Option(["--directory"], metavar="DIR", help="Write here (/etc/systemd/system)."),
        click.Option(["--force"], is_flag=True, help="Write over files that differ."),
        click.Option(["--dry-run"], is_flag=True, help="Say what would be written, and write nothing."),
    ]
    for name, more, callback, text in (
        ("install", install, _install, "Write the unit, and a slice and a target for all workers."),
        ("print", [], _print, "Show the unit."),
    ):
        group.add_command(make_command(name, [*more, *_options()], callback, help=text, kind=_Command))
    return group


command = _group()
