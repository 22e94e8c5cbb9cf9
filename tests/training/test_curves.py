"""The records of a run, drawn."""

from io import BytesIO

from PIL import Image

from fiber_cli.training.curves import curves

RECORDS = [
    {"step": 1, "lr": 0.1, "loss": 2.0, "itc_loss": 1.0},
    {"step": 1, "itc/ir@1": 30.0},
    {"step": 2, "lr": 0.2, "loss": None, "itc_loss": 0.5},
]


def test_losses_metrics_and_rate_have_a_panel_each():
    for records, panels in ((RECORDS, 3), (RECORDS[:1], 2)):
        assert Image.open(BytesIO(curves(records))).size == (600 * panels, 480)


def test_a_run_without_numbers_has_a_picture():
    assert curves([{"step": 1}]) is None
    assert curves([]) is None


def test_a_loss_that_was_never_finite_keeps_the_others_from_the_picture():
    assert curves([{"step": 1, "loss": None, "mlm_loss": 1.0}]) is not None
