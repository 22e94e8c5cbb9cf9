"""`fiber plan`, against a dry run of the same recipe."""

import pytest
from small_runs import RECIPE

from fiber_cli.cli.app import main
from fiber_cli.config.resolve import parse_recipe
from fiber_cli.training.gpus import GPUS
from fiber_cli.training.plan import dry_run


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(RECIPE)
    return path


def run(capsys, *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(["plan", *words])
    out, err = capsys.readouterr()
    return int(end.value.code or 0), out, err


def line(out: str, beginning: str) -> str:
    return next(each for each in out.splitlines() if each.startswith(beginning))


@pytest.mark.parametrize("world", [1, 2])
def test_parameters_and_memory_are_those_of_the_dry_run(file, world, capsys, monkeypatch):
    changes = ["runtime.micro_batch=4", "runtime.zero_stage=1"]
    monkeypatch.setenv("WORLD_SIZE", str(world))
    dry_run(parse_recipe(RECIPE, "small", changes))
    told = capsys.readouterr().out
    monkeypatch.delenv("WORLD_SIZE")
    code, out, _ = run(capsys, str(file), *changes, "--gpus", str(world))
    assert code == 0
    for beginning in ("parameters:", "memory per rank"):
        assert line(out, beginning) == line(told, beginning)


@pytest.mark.parametrize("device", ["h100", "H100", "rtx 4090", "RTX-4090", "a100-40"])
def test_a_device_is_known_however_it_is_written(device, file, capsys):
    code, out, err = run(capsys, str(file), "--device", device)
    assert code == 0, err
    assert any(gpu.title in line(out, "recipe:") for gpu in GPUS.values())
    assert "fits" in line(out, "memory: ")


def test_hours_follow_from_the_samples_the_operations_and_the_share(file, capsys):
    changes = ["optim.steps=1000000000"]
    hours = []
    for share in ("0.5", "0.25"):
        _, out, _ = run(capsys, str(file), *changes, "--gpus", "1", "--share", share)
        assert f"{float(share):.0%} of the 165 TFLOPS" in line(out, "assumption:")
        hours.append(float(line(out, "time:").split()[1].replace(",", "")))
    assert hours[1] == pytest.approx(2 * hours[0], rel=0.06)


def test_what_does_not_fit_is_said_with_a_way_out(file, capsys, monkeypatch):
    monkeypatch.setitem(GPUS, "4090", GPUS["4090"]._replace(gib=1))
    _, out, _ = run(capsys, str(file))
    assert "does not fit: lower runtime.micro_batch, or set runtime.activation_checkpointing" in line(out, "memory: ")


def test_gpus_that_do_not_divide_the_batch_are_refused_or_change_it_in_silence(file, capsys):
    code, out, _ = run(capsys, str(file), "--gpus", "3")
    assert code == 0
    assert "a batch near it that does is taken" in line(out, "batch: ")


@pytest.mark.parametrize(
    ("words", "message", "expected"),
    [
        (("nowhere",), "unknown recipe 'nowhere'", 2),
        (("tiny", "--device", "gpu9"), "--device gpu9: not known; known are h200, h100", 1),
        (("tiny", "model.image_size=65"), "model.image_size: 65 is not a multiple of 32", 2),
    ],
)
def test_what_cannot_be_planned_is_one_clear_error(words, message, expected, capsys):
    code, _, err = run(capsys, *words)
    assert (code, message in err) == (expected, True), err
