"""What a summary says of where a run ran."""

from pathlib import Path

import torch

import fiber_cli
from fiber_cli.checkpoints.loading import load
from fiber_cli.checkpoints.placing import placed
from fiber_cli.checkpoints.run_files import hardware_of
from fiber_cli.distributed.device import in_words, processor_name
from fiber_cli.training.environment import environment


def test_versions_and_hardware_are_named():
    described = environment()
    assert described["fiber"] == fiber_cli.__version__
    assert described["torch"] == torch.__version__
    assert described["ranks"] == 1
    assert described["threads_per_rank"] == torch.get_num_threads()


def test_a_training_and_an_evaluation_name_one_device_in_two_forms(saved, monkeypatch):
    """The kind of device, and the hardware apart."""
    of_results = placed(load(saved)).facts()
    of_summary = environment()
    for name in ("device", "hardware"):
        assert of_results[name] == of_summary[name]
    if not torch.cuda.is_available():
        assert of_summary["device"] == "cpu"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda where: "a GPU")
    assert in_words(torch.device("cuda", 0)) == {"device": "cuda", "hardware": "a GPU"}


def test_the_processor_is_known_by_its_kind_alone_where_its_model_is_told():
    info = Path("/proc/cpuinfo")
    models = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.is_file() else []
    assert processor_name()
    if models:
        assert processor_name() == models[0].partition(":")[2].strip()


def test_a_summary_of_an_earlier_version_has_no_hardware():
    assert hardware_of({"device": "x86_64"}) == "x86_64"
    assert hardware_of({"device": "cuda", "hardware": "a GPU"}) == "a GPU"
    assert hardware_of({}) == "an unknown device"
