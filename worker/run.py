"""From options to a running worker to an exit code. Called by the command line."""

from __future__ import annotations

import logging
import os
import random
import resource
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Final

from ..core import log_events, logs, secrets
from ..core.clock import SystemClock, follow_broker
from ..core.companion import About, Companion
from ..core.cpus import usable_cpus
from ..core.errors import ConfigError, TransportError
from ..core.memory_limit import memory_limit
from ..core.tally import Tally
from ..core.urls import redact
from ..pool import MAX_SLOTS, Boot, Pace, SlotTable, SpawnerHandle
from ..results import open_result_store
from .autoscale import Autoscale
from .banner import banner
from .broker import Broker, longest_call_s
from .consumer import Consumer
from .exitcodes import ExitCode
from .giving_back import names_of
from .headroom import overcommitment
from .image import MOST, WITHIN_S, Image
from .ledger import Ledger
from .link import Link
from .loading import load, options_dict, working_directory
from .logging_setup import configure_logs
from .mailbox import Mailbox
from .master import Master
from .names import node_name, owner_name
from .notices import Notice
from .options import WorkerOptions
from .plan import Plan
from .preparation import Preparation
from .settler import Settler
from .shortage import SPARE_DESCRIPTORS

logger = logging.getLogger("qworker.worker")

#: What a child costs the master: both ends of its work socket, its talk socket, its stacks.
_DESCRIPTORS_OF_CHILD: Final = 4
#: What the master has without children, and what children leave to connections, log files and requests.
_DESCRIPTORS: Final = 24 + SPARE_DESCRIPTORS


def run_worker(options: WorkerOptions, companions: Sequence[Companion] = (), image: Image | None = None) -> int:
    """Run a worker until it is told to stop; returns the exit code. Main thread only, and only once per process.

    `companions` live in the master's main thread as long as the worker does. `image`: if the command line of this
    process is the worker's, how to start it anew; an heir does nothing again that is to be done once.
    Raises ConfigError for what can be refused before the application is loaded.
    """
    configure_logs(options)
    _warn_of_root()
    working_directory(options)
    _allow_descriptors()
    node = node_name(options.nodename)
    if image is not None and image.legacy.replaced_at:
        _tell_of_heir(image)
        options = replace(options, purge=False, quiet=True)
    builder = _Builder(options, node, image.legacy.owner if image is not None else "")
    boot = Boot(load, options_dict(options, node))
    master = Master(
        partial(SpawnerHandle, boot), builder.plan, SystemClock(), node=node, companions=companions, image=image
    )
    code = master.run()
    if master.has_started:
        logs.say(logger, logging.INFO, log_events.STOPPED, "stopped, exit code {code}", code=code)
    return int(code)


def _tell_of_heir(image: Image) -> None:
    often = f"{len(image.legacy.replaced_at)} of at most {MOST} times within {WITHIN_S / 60:g} minutes"
    logs.say(
        logger,
        logging.WARNING,
        log_events.IMAGE_REPLACED,
        "this process was started anew because its consumer thread hung ({often})",
        often=often,
    )


def _warn_of_root() -> None:
    if os.geteuid() == 0:
        text = "this worker runs as root, and so does every task that anybody can put on its queues; give it --uid"
        logs.event(logger, logging.WARNING, log_events.RUNS_AS_ROOT, text=text)


def _allow_descriptors() -> None:
    """Each child costs the master some descriptors: use all that the system's hard limit allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class _Builder:
    """Builds the consumer once the spawner has told what the application's settings are.

    `estate`: in whose name messages are still held, by the image that was in this process before; "" = nobody's.
    """

    def __init__(self, options: WorkerOptions, node: str, estate: str) -> None:
        self._options = options
        self._node = node
        self._estate = estate

    def plan(
        self, config: dict[str, Any], table: SlotTable, mailbox: Mailbox, notify: Callable[[Notice], None]
    ) -> Plan:
        """Make everything the consumer thread owns. Raises ConfigError."""
        conf = config["conf"]
        secrets.learn(conf)
        configure_logs(self._options, conf)
        follow_broker(table.broker_base)
        size = self._size(conf)
        clock = SystemClock()
        ledger = Ledger()
        broker, owner = Broker(conf, config["queues"]), owner_name(self._node)
        transport, lease_s = broker.open(owner), broker.lease_s
        self._settle(broker)
        tally = Tally(config["tasks"], config["queues"])
        _check_limits(conf["task_time_limit"], config["longest_limit"], transport.capabilities.max_claim_s)
        store = open_result_store(conf["result_backend"], settings=_patient(conf, lease_s))
        link = Link(
            transport,
            config["queues"],
            ledger,
            clock,
            lease_s=lease_s,
            max_attempts=conf["broker_connection_max_retries"],
            rng=random.Random(),
            horizon=table.set_lease,
            broker_base=table.set_broker_base,
            purge=self._options.purge,
            is_prepared=Preparation(store).is_done,
            tally=tally,
        )
        pace = Pace(
            conf["worker_prefetch_multiplier"],
            fixed=config["fixed_prefetch"],
            fair=self._options.optimization == "fair",
        )
        settler = Settler(transport, store, ledger, clock, tally)
        final = frozenset(config["final_tasks"])
        consumer = Consumer(
            link,
            ledger,
            settler,
            pace,
            mailbox,
            clock,
            notify,
            table,
            final,
            burst=self._options.burst,
            deaf_timeout_s=conf["worker_deaf_timeout"],
            tally=tally,
            quota=partial(quota, conf["worker_max_tasks_per_child"], conf["worker_recycle_jitter"], random.Random()),
        )
        self._greet(config, size)
        return Plan(
            consumer,
            size,
            soft_s=conf["worker_soft_shutdown_timeout"],
            deaf_timeout_s=conf["worker_deaf_timeout"],
            owner=owner,
            give_back=partial(broker.give_back, owner),
            autoscale=Autoscale(*self._options.autoscale) if self._options.autoscale else None,
            max_memory_kib=conf["worker_max_memory_per_child"] or 0,
            max_memory_hard_kib=conf["worker_max_memory_hard"] or 0,
            about=About(
                app=config["app"],
                broker=redact(conf["broker_url"]),
                results=redact(conf["result_backend"]) if conf["result_backend"] else "",
                queues=tuple(config["queues"]),
            ),
        )

    def _size(self, conf: dict[str, Any]) -> int:
        if self._options.autoscale:
            return self._options.autoscale[0]
        size = conf["worker_concurrency"] or usable_cpus()
        if size > MAX_SLOTS:
            raise ConfigError(f"concurrency {size} is above the {MAX_SLOTS} children that one worker can have")
        needed, most = _DESCRIPTORS + size * _DESCRIPTORS_OF_CHILD, resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if needed > most:
            raise ConfigError(
                f"concurrency {size} needs {needed} descriptors, and this process may have {most}; raise the limit "
                "(LimitNOFILE=, ulimit -n), or lower --concurrency"
            )
        return int(size)

    def _settle(self, broker: Broker) -> None:
        """Give back what the image before this one could not."""
        if not self._estate:
            return
        try:
            logs.say(
                logger,
                logging.WARNING,
                log_events.HEIR_GAVE_BACK,
                "given back of what was held before: {ids}",
                ids=names_of(broker.give_back(self._estate)) or "nothing",
            )
        except (TransportError, ConfigError) as error:
            logs.say(
                logger,
                logging.ERROR,
                log_events.LEFT_TO_LEASE,
                "{error}; what was held before is left to its lease",
                error=error,
            )

    def _greet(self, config: dict[str, Any], size: int) -> None:
        from .. import __version__

        if not self._options.quiet:
            with suppress(OSError):  # a full disk, a reader that has gone: a log that cannot be written stops nobody
                sys.stderr.write(banner(__version__, self._node, config, size) + "\n")
                sys.stderr.flush()
        most = self._options.autoscale[1] if self._options.autoscale else size
        if trouble := overcommitment(most, config["conf"], memory_limit()):
            logs.say(logger, logging.WARNING, log_events.MEMORY_OVERCOMMITTED, "{problem}", problem=trouble)


def _check_limits(default_s: float | None, longest_s: float | None, most_s: float | None) -> None:
    """A task that may run longer than its message can be held would be run again before its limit ends it."""
    longest_s = max(default_s or 0, longest_s or 0)
    if most_s is not None and longest_s > most_s:
        raise ConfigError(
            f"a time limit of {longest_s:g} s is above the {most_s:g} s for which this broker keeps a message for us; "
            "lower it, or split the task"
        )


def _patient(conf: dict[str, Any], lease_s: float) -> dict[str, Any]:
    """The settings with a result store's time-outs cut to what the lease allows: it is renewed by the same thread."""
    most_s = min(max(1.0, lease_s / 6), longest_call_s(lease_s, conf["worker_deaf_timeout"]))
    options = dict(conf["result_backend_transport_options"] or {})
    for name in ("socket_timeout", "socket_connect_timeout"):
        options[name] = min(options.get(name) or conf[f"redis_{name}"] or most_s, most_s)
    return {**conf, "result_backend_transport_options": options}


def quota(max_tasks: int | None, jitter: int, rng: random.Random) -> int | None:
    """How many messages a new child may be given: up to `jitter` more than `max_tasks`, or None for any number."""
    return max_tasks + rng.randint(0, jitter) if max_tasks else None


__all__ = ["ExitCode", "run_worker"]
