"""Messages made from nothing by hypothesis: envelopes whose every part may be right, absent, or anything."""

from __future__ import annotations

import base64
import json
import random
from datetime import datetime
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
ANY_JSON = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
_TASKS = st.sampled_from(["wapp.add", "wapp.ident", "wapp.boom", "wapp.flaky", "wapp.once", "no.such"])
_IDS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=40)


def _or_any(usual: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mostly what belongs there."""
    return st.one_of(usual, usual, usual, usual, usual, ANY_JSON)


_TIME = st.none() | st.datetimes().map(lambda moment: moment.isoformat())
_SIGNATURE = st.fixed_dictionaries(
    {"task": _or_any(_TASKS)},
    optional={
        "args": _or_any(st.lists(_LEAVES, max_size=2)),
        "kwargs": _or_any(st.just({})),
        "options": _or_any(
            st.fixed_dictionaries(
                {},
                optional={
                    "task_id": _or_any(_IDS),
                    "queue": _or_any(st.sampled_from(["fuzz", "other"])),
                    "priority": _or_any(st.integers(0, 9)),
                    "countdown": _or_any(st.floats(0, 10)),
                    "expires": _or_any(_TIME),
                    "link": _or_any(st.just([])),
                },
            )
        ),
        "subtask_type": _or_any(st.none()),
        "immutable": _or_any(st.booleans()),
    },
)
_LINKS = _or_any(st.none() | st.lists(_SIGNATURE, max_size=2))
_EMBED = st.fixed_dictionaries(
    {}, optional={"callbacks": _LINKS, "errbacks": _LINKS, "chain": _LINKS, "chord": _or_any(st.none())}
)
_CALL = st.tuples(
    _or_any(st.lists(ANY_JSON, max_size=3)), _or_any(st.just({})), _or_any(st.none() | _EMBED)
).map(list)  # fmt: skip
_FIELDS = {
    "retries": _or_any(st.integers(0, 5)),
    "eta": _or_any(_TIME),
    "expires": _or_any(_TIME),
    "timelimit": _or_any(st.lists(st.none() | st.floats(10, 100), min_size=2, max_size=2)),
    "group": _or_any(st.none() | _IDS),
    "root_id": _or_any(st.none() | _IDS),
    "parent_id": _or_any(st.none() | _IDS),
    "ignore_result": _or_any(st.none() | st.booleans()),
    "stamps": _or_any(st.just({})),
}
_HEADERS = st.fixed_dictionaries({"task": _or_any(_TASKS), "id": _or_any(_IDS)}, optional=_FIELDS)
_PROPERTIES = st.fixed_dictionaries(
    {"body_encoding": _or_any(st.just("base64"))},
    optional={
        "delivery_info": _or_any(st.just({"exchange": "", "routing_key": "fuzz"})),
        "delivery_tag": _or_any(_IDS),
        "priority": _or_any(st.integers(0, 9)),
        "reply_to": _or_any(_IDS),
        "correlation_id": _or_any(_IDS),
    },
)
_PROTOCOL_1 = st.fixed_dictionaries(
    {"task": _or_any(_TASKS), "id": _or_any(_IDS)}, optional={**_FIELDS, "args": _LEAVES}
)


def _envelope(body: Any, headers: Any, properties: Any, kind: Any, encoding: Any) -> bytes:
    text = base64.b64encode(json.dumps(body).encode()).decode()
    envelope = {"body": text, "headers": headers, "properties": properties}
    return json.dumps(envelope | {"content-type": kind, "content-encoding": encoding}).encode()


_KIND, _ENCODING = _or_any(st.just("application/json")), _or_any(st.just("utf-8"))
MESSAGES = st.one_of(
    st.builds(_envelope, _CALL, _HEADERS, _PROPERTIES, _KIND, _ENCODING),
    st.builds(_envelope, _CALL, _HEADERS, _PROPERTIES, _KIND, _ENCODING),
    st.builds(_envelope, _or_any(_CALL), _or_any(_HEADERS), _or_any(_PROPERTIES), _KIND, _ENCODING),
    st.builds(_envelope, _PROTOCOL_1, st.just({}), _PROPERTIES, _KIND, _ENCODING),
    st.binary(max_size=60),
)


_PAST = st.none() | st.datetimes(max_value=datetime(2020, 1, 1)).map(datetime.isoformat)
_FUTURE = st.none() | st.datetimes(min_value=datetime(2100, 1, 1), max_value=datetime(9000, 1, 1)).map(
    datetime.isoformat
)
_SOUND_FIELDS = {
    "retries": st.integers(0, 5),
    "eta": _PAST,
    "expires": _FUTURE,
    "timelimit": st.just([None, None]) | st.lists(st.floats(10, 100), min_size=2, max_size=2),
    "group": st.none() | _IDS,
    "ignore_result": st.just(False),
}
_SOUND = st.builds(
    _envelope,
    st.tuples(st.lists(ANY_JSON, max_size=3), st.just({}), st.none()).map(list),
    st.fixed_dictionaries({"task": st.just("wapp.ident"), "id": _IDS}, optional=_SOUND_FIELDS),
    st.just({"body_encoding": "base64"}),
    st.just("application/json"),
    st.just("utf-8"),
)


def made_messages(count: int, with_seed: int) -> list[bytes]:
    """Return `count` messages, every tenth a sound one; the same seed gives the same ones."""
    sound = sound_messages(count // 10, with_seed)
    made = _drawn(MESSAGES, count - len(sound), with_seed) + sound
    random.Random(with_seed).shuffle(made)
    return made


def sound_messages(count: int, with_seed: int) -> list[bytes]:
    """Return `count` messages that succeed: `made_messages` alone may be without any."""
    return _drawn(_SOUND, count, with_seed)


def _drawn(messages: st.SearchStrategy[bytes], count: int, with_seed: int) -> list[bytes]:
    found: list[bytes] = []

    @seed(with_seed)
    @settings(
        max_examples=max(count, 1), database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(messages)
    def collect(raw: bytes) -> None:
        found.append(raw)

    collect()
    assert len(found) >= count
    return found[:count]
