"""Every benchmark by one command."""

import json

import pytest

from benchmarks import __main__ as everything
from benchmarks.__main__ import Benchmark
from benchmarks.gpu import PARTS
from benchmarks.steps import WAYS


def test_the_table_lacks_a_figure_or_hides_a_failure(tmp_path, monkeypatch, capsys):
    place = Benchmark(
        "fusion_place", ("--preset", "tiny"), (("parameters", ("places", "in the backbone", "parameters")),)
    )
    wrong = Benchmark("fusion_cost", ("--preset", "none"))
    monkeypatch.setattr(everything, "BENCHMARKS", (place, wrong))
    with pytest.raises(SystemExit) as ended:
        everything.main(["--small", "--out", str(tmp_path)])
    assert ended.value.code == 1
    shown = capsys.readouterr().out
    assert shown == (tmp_path / "table.md").read_text()
    parameters = json.loads((tmp_path / "fusion_place.json").read_text())["places"]["in the backbone"]["parameters"]
    good, bad = shown.splitlines()[-2:]
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
    modules = [line.split()[2].removeprefix("benchmarks.") for line in lines]
    folder = everything.__file__.rpartition("/")[0]
    assert modules == [benchmark.name for benchmark in everything.BENCHMARKS]
    for name in modules:
        with open(f"{folder}/{name}.py", encoding="utf-8") as file:
            assert f"python -m benchmarks.{name}" in file.read()


def test_a_name_that_options_separate_by_commas_has_one():
    names = [*WAYS, *PARTS]
    assert names
    assert not [name for name in names if "," in name]
