"""Figure 5 as it is drawn."""

import math

from matplotlib.axes import Axes
from tables.conftest import finish, write_results, write_tunings

from fiber_cli.tables.paper import TABLES
from fiber_cli.tables.picture import few_shot_curve
from fiber_cli.tables.render import MeasuredTable
from fiber_cli.tables.results import Results


def test_a_line_goes_over_shots_that_are_missing(runs, monkeypatch):
    finish(runs / "fine")
    write_results(runs / "fine", "odinw13", "test", "detection", {"detection/ap": 3.0})
    write_tunings(runs / "odinw13", "1,3,0", None)
    drawn = []
    plot = Axes.plot

    def recording(axes, places, values, *more, **options):
        drawn.append([None if math.isnan(value) else value for value in values])
        return plot(axes, places, values, *more, **options)

    monkeypatch.setattr(Axes, "plot", recording)
    few_shot_curve(MeasuredTable(TABLES["fig5"], Results(runs).figure))
    ours, paper = drawn
    assert ours == [3.0, 40.0, 40.0, None, None, 40.0]
    assert paper == [47.0, None, None, None, None, 65.9]
