"""The transition table: what ARCHITECTURE.md says, and what must hold for every sequence of events."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qworker.worker import TRANSITIONS, Event, Phase, next_phase

ARCHITECTURE = Path(__file__).parents[2] / "ARCHITECTURE.md"
_ORDER = {phase: place for place, phase in enumerate(Phase)}
_STOPPING = [Phase.WARM, Phase.SOFT, Phase.COLD, Phase.HARD, Phase.STOPPED]


def documented_table() -> dict[tuple[Phase, Event], Phase]:
    lines = ARCHITECTURE.read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| phase | ready"))
    events = [Event(cell.strip()) for cell in lines[start].split("|")[2:-1]]
    table = {}
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        name, *cells = (cell.strip() for cell in line.split("|")[1:-1])
        table.update({(Phase(name), e): Phase(c) for e, c in zip(events, cells, strict=True) if c})
    return table


def test_the_table_in_architecture_is_the_table_in_the_code() -> None:
    assert documented_table() == TRANSITIONS


@settings(max_examples=100)
@given(st.lists(st.sampled_from(Event), min_size=100, max_size=300))  # 10 000 events and more in all
def test_a_stop_never_goes_back(events: list[Event]) -> None:
    phase = Phase.STARTING
    for event in events:
        before, phase = phase, next_phase(phase, event)
        if before in _STOPPING:
            assert _ORDER[phase] >= _ORDER[before]


@pytest.mark.parametrize("phase", [p for p in Phase if p is not Phase.STOPPED])
def test_every_phase_can_be_ended_by_repeated_quit_and_its_deadlines(phase: Phase) -> None:
    for _ in range(4):
        phase = next_phase(phase, Event.QUIT)
    assert phase is Phase.HARD
    assert next_phase(phase, Event.DEADLINE) is Phase.STOPPED


def test_a_repeated_term_changes_nothing() -> None:
    assert next_phase(Phase.WARM, Event.TERM) is Phase.WARM


def test_interrupts_escalate_from_warm_to_hard() -> None:
    phase = Phase.RUNNING
    seen = []
    for _ in range(4):
        phase = next_phase(phase, Event.INT)
        seen.append(phase)
    assert seen == [Phase.WARM, Phase.SOFT, Phase.COLD, Phase.HARD]
