"""Lines over the last hour: within their frame, with gaps where nobody knows, and said in words."""

from worker.http.page.chart import HEIGHT, WIDTH, charts, seconds
from worker.observability.history import Point


def test_a_line_ends_now_and_its_highest_point_touches_the_top():
    points = [Point(0.0, 40, 10.0, 5.0), Point(15.0, 80, 20.0, 5.0), Point(30.0, 0, 0.0, 5.0)]
    rates, lag, _ = charts(points, 30.0)
    decided, placed = rates.lines
    assert decided.pieces == (f"595.0,{HEIGHT / 2} 597.5,0.0 {WIDTH}.0,{HEIGHT}.0",)
    assert (decided.now, placed.now, rates.highest) == ("0", "5.0", "20")
    assert lag.lines[0].pieces[0].startswith("595.0,50.0 597.5,0.0 ")
    assert rates.words == "Orders a second, last hour: decided 0, placed 5.0; highest 20"


def test_where_points_are_missing_or_nothing_is_known_there_is_a_gap():
    points = [Point(0.0, 1, 1.0), Point(16.0, 1, 1.0), Point(200.0, 1, 1.0), Point(216.0, 1, None)]
    rates, lag, times = charts(points, 216.0)
    assert [len(piece.split()) for piece in rates.lines[0].pieces] == [2, 2]
    first, second = rates.lines[0].pieces[1].split()
    assert first == second, "a point alone"
    assert [len(piece.split()) for piece in lag.lines[0].pieces] == [2, 2]
    assert [line.pieces for line in times.lines] == [(), ()]
    assert (
        times.words == "A batch of this worker takes, last hour: half within –, 99 % within –; highest 0 ms"
    )


def test_what_lies_an_hour_back_is_at_the_left_edge_and_one_point_is_no_line():
    points = [Point(-100.0, 0), Point(0.0, 0)]
    _, lag, _ = charts(points, 3_590.0)
    assert lag.lines[0].pieces[0].split()[0] == f"0.0,{HEIGHT}.0", "nothing waits: at the bottom"
    assert charts(points[:1], 0.0) == ()


def test_a_time_is_reported_in_milliseconds_below_a_second():
    assert [seconds(value) for value in (None, 0.0123, 2.5)] == ["–", "12 ms", "2.5 s"]
