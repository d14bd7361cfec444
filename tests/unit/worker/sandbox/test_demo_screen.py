"""The live picture fits whatever terminal it meets."""

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from worker.sandbox.demo.screen import BACK, KILLED, TAKEN_OVER, ScreenState, WorkerLine, render


def busy_state(seconds: float = 18.0) -> ScreenState:
    """The demo near its end, every number as large as it gets."""
    state = ScreenState(
        orders=1_798, records=1_915, now="Worker 2 is started again, as a supervisor would do."
    )
    state.placed.update(order=1_798, duplicate=72, broken=40, conflict=5)
    state.counts.update(confirmed=1_460, rejected=338)
    state.reasons.update(insufficient_stock=1_270, price_changed=1_079, unknown_product=10, unknown_user=3)
    state.codes.update(
        invalid_order=1_020, not_json=19, order_id_conflict=5, empty_value=2, too_large=1, data_error=1
    )
    state.lag = 1_234
    for quarter in range(int(seconds * 4)):
        state.tick(quarter / 4, quarter * 24, quarter * 23)
        for mark, at in ((KILLED, 40), (TAKEN_OVER, 41), (BACK, 60)):
            if quarter == at:
                state.happened(f"worker 2 {mark}; " + "and a long explanation of it " * 5, mark)
    state.workers = [
        WorkerLine("worker 1", 1_234_567, "live", (0, 1, 2, 3), 1_087, "http://127.0.0.1:31234"),
        WorkerLine("worker 2", 1_234_568, "killed", (), 711),
    ]
    return state


def drawn(state: ScreenState, width: int, height: int) -> list[str]:
    console = Console(width=width, height=height, file=io.StringIO(), force_terminal=True, color_system=None)
    with console.capture() as captured:
        console.print(render(state, width, height))
    return captured.get().splitlines()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (80, 30), (100, 30), (120, 40), (240, 70), (60, 15)])
@pytest.mark.parametrize("state", [ScreenState(1_798, 1_915), busy_state(), busy_state(seconds=90)])
def test_fills_the_terminal_and_never_more(state: ScreenState, width: int, height: int):
    lines = drawn(state, width, height)
    assert len(lines) == height
    assert max(cell_len(line) for line in lines) <= width


@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 30), (120, 40)])
def test_shows_every_number_whole(width: int, height: int):
    screen = "\n".join(drawn(busy_state(), width, height))
    for number in ("1,798", "1,460", "338", "1,234", "1,270", "1,079", "1,020", "1,087", "711"):
        assert number in screen
    assert "as a supervisor would do." in screen
    assert "▲ killed" in screen or "▲" in screen
    assert "Ctrl-C" in screen


def test_a_small_terminal_still_shows_what_counts():
    screen = "\n".join(drawn(busy_state(), 60, 15))
    assert "1,798 of 1,798 orders decided" in screen
    assert "at least 80 × 24" in screen


def test_the_chart_keeps_the_differences_of_the_totals():
    state = ScreenState(10, 10)
    state.tick(0.1, placed=1, visible=0)
    state.tick(0.2, placed=3, visible=1)
    state.tick(0.9, placed=7, visible=1)
    assert state.sent == [3, 0, 0, 4]
    assert state.visible == [1, 0, 0, 0]


def test_one_burst_does_not_flatten_the_rest():
    state = ScreenState(10_000, 10_000)
    total = 0
    for quarter in range(40):
        total += 1_000 if quarter == 20 else 20
        state.tick(quarter / 4, total, total)
    chart = [line for line in drawn(state, 100, 30) if set(line) & set("▁▂▃▄▅▆▇█")]
    assert len(chart) == 4
    assert "█" * 30 not in chart[0]
    assert any("████" in line for line in chart[1:])
