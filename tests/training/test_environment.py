"""What a summary says of where a run ran."""

import torch

import fiber_cli
from fiber_cli.training.environment import environment


def test_versions_and_hardware_are_named():
    described = environment()
    assert described["fiber"] == fiber_cli.__version__
    assert described["torch"] == torch.__version__
    assert described["ranks"] == 1
    assert described["threads_per_rank"] == torch.get_num_threads()
    assert described["device"]
