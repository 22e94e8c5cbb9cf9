"""The best validation so far, and how long ago it was."""

from fiber_cli.training.progress import Progress


def test_only_a_better_value_is_the_best():
    progress = Progress()
    better = []
    for step, value in enumerate([10.0, 9.0, 12.0, 12.0, 11.0]):
        progress.step = step
        better.append(progress.is_best("itc/ir@1", value, patience=10))
    assert better == [True, False, True, False, False]
    assert progress.best == {"metric": "itc/ir@1", "value": 12.0, "step": 2}
    assert progress.stale == 2


def test_every_so_many_validations_without_a_better_one_are_a_drop():
    progress = Progress()
    drops = []
    for value in (5.0, 4.0, 4.0, 4.0, 4.0, 6.0, 5.0, 5.0):
        progress.is_best("itc/ir@1", value, patience=2)
        drops.append(progress.drops)
    assert drops == [0, 0, 1, 1, 2, 2, 2, 3]


def test_values_of_another_metric_are_not_compared():
    progress = Progress()
    progress.is_best("caption/cider", 90.0, patience=1)
    assert progress.is_best("caption/cider (plain tokens)", 80.0, patience=1)
