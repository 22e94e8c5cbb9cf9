"""metrics.jsonl read back, and drawn."""

from PIL import Image

from fiber_cli.training.curves import draw_curves, read_metrics

RECORDS = [
    {"step": 1, "lr": 0.1, "loss": 2.0, "itc_loss": 1.0},
    {"step": 1, "itc/ir@1": 30.0},
    {"step": 2, "lr": 0.2, "loss": None, "itc_loss": 0.5},
]


def test_a_line_cut_by_a_kill_is_left_out(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert read_metrics(file) == [{"step": 1}, {"step": 2}]
    file.write_text('{"step": 1}\n{"step": 2}\n')
    assert read_metrics(file) == [{"step": 1}, {"step": 2}]
    assert read_metrics(tmp_path / "absent.jsonl") == []


def test_losses_metrics_and_rate_have_a_panel_each(tmp_path):
    for records, panels in ((RECORDS, 3), (RECORDS[:1], 2)):
        draw_curves(records, tmp_path / "curves.png")
        assert Image.open(tmp_path / "curves.png").size == (600 * panels, 480)


def test_a_run_without_numbers_has_no_picture(tmp_path):
    draw_curves([{"step": 1}], tmp_path / "curves.png")
    draw_curves([], tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()


def test_a_loss_that_was_never_finite_does_not_keep_the_others_from_the_picture(tmp_path):
    draw_curves([{"step": 1, "loss": None, "mlm_loss": 1.0}], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").is_file()
