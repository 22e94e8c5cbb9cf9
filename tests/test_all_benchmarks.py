"""Every benchmark by one command."""

import json
from importlib.util import find_spec

import pytest
import torch

from benchmarks import __main__ as everything
from benchmarks.__main__ import Benchmark
from benchmarks.gpu import PARTS
from benchmarks.steps import WAYS


def test_the_table_lacks_a_figure_or_hides_a_failure(tmp_path, monkeypatch, capsys):
    place = Benchmark(
        "fusion_place", ("--preset", "tiny"), (("parameters", ("places", "in the backbone", "parameters")),)
    )
    wrong = Benchmark("fusion_cost", ("--preset", "none"))
    sizes = ("--images", "2", "--detections", "2", "--lvis-images", "2")
    lacking = Benchmark("scoring", sizes, (("parameters", ("places", "elsewhere")),))
    monkeypatch.setattr(everything, "BENCHMARKS", (lacking, place, wrong))
    with pytest.raises(SystemExit) as ended:
        everything.main(["--small", "--out", str(tmp_path)])
    assert ended.value.code == 1
    shown = capsys.readouterr().out
    assert shown == (tmp_path / "table.md").read_text()
    parameters = json.loads((tmp_path / "fusion_place.json").read_text())["places"]["in the backbone"]["parameters"]
    without, good, bad = shown.splitlines()[-3:]
    assert "FAILED" in without
    assert "elsewhere" in without
    assert f"parameters {parameters:,}" in good
    assert "FAILED" in bad
    assert "none" in bad
    assert shown.startswith("processor ")


def test_an_unknown_benchmark_is_run(capsys):
    with pytest.raises(SystemExit):
        everything.main(["--only", "speed"])
    assert "coarse_step" in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--list"], ["--list", "--small"]])
def test_the_list_names_a_module_that_is_not_there(options, capsys):
    everything.main(options)
    lines = capsys.readouterr().out.splitlines()
    commands = [line for line in lines if not line.startswith("#")]
    modules = [line.split()[2].removeprefix("benchmarks.") for line in commands]
    reasons = dict(line.removeprefix("# left out: benchmarks.").split(": ", 1) for line in lines[len(commands) :])
    assert reasons == everything.LEFT_OUT
    assert modules == [benchmark.name for benchmark in everything.BENCHMARKS]
    for name in modules:
        assert find_spec(f"benchmarks.{name}") is not None


def test_one_that_is_left_out_is_refused_without_the_reason(capsys):
    with pytest.raises(SystemExit):
        everything.main(["--only", "table_chain"])
    assert everything.LEFT_OUT["table_chain"] in capsys.readouterr().err


def test_a_benchmark_of_gpus_takes_a_machine_without_one_down(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    everything.main(["--only", "gpu", "--out", str(tmp_path)])
    assert "left out: its full size needs a GPU" in capsys.readouterr().out.splitlines()[-1]
    assert not (tmp_path / "gpu.log").exists()


def test_a_name_that_options_separate_by_commas_has_one():
    names = [*WAYS, *PARTS]
    assert names
    assert not [name for name in names if "," in name]
