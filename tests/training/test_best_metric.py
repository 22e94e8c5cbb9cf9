"""By which metric the best checkpoint is kept, and what no validation can give."""

import pytest

from fiber_cli.errors import UserError
from fiber_cli.training.best_metric import check_measurable, measured_name


def test_the_metric_or_its_stand_in_is_found():
    assert measured_name("caption/cider", ["caption/bleu4", "caption/cider"]) == "caption/cider"
    assert measured_name("caption/cider", ["caption/cider (plain tokens)"]) == "caption/cider (plain tokens)"
    with pytest.raises(UserError, match=r"the validation has no a/b; it measured c/d. Go by one of these"):
        measured_name("a/b", ["c/d"])


@pytest.mark.parametrize(
    ("measurable", "said"),
    [
        (["lvis/ap", "lvis/apr"], "cannot give detection/ap; data.val gives lvis/ap, lvis/apr. Go by one of these"),
        (["detection/ap/a", "detection/ap/b"], "data.val gives detection/ap/a, detection/ap/b"),
        ([], "cannot give detection/ap: nothing in data.val has a truth to be scored by"),
    ],
)
def test_a_metric_that_cannot_be_measured_is_refused(measurable, said):
    check_measurable("detection/ap", ["detection/ap50", "detection/ap"])
    with pytest.raises(UserError, match=said):
        check_measurable("detection/ap", measurable)
