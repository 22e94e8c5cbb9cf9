"""Stochastic depth is timm's, and in a compiled graph the same with a rate that is read."""

import pytest
import torch
from timm.layers.drop import DropPath as TimmDropPath
from torch import nn

from fiber_cli.model.drop_path import DropPath


def test_other_samples_are_dropped_than_timm_drops():
    x = torch.randn(64, 3, 2)
    dropped = []
    for path in (DropPath(0.25), TimmDropPath(0.25)):
        torch.manual_seed(0)
        dropped.append(path.train()(x))
    assert torch.equal(*dropped)
    assert DropPath(0.25).eval()(x) is x


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("training", [True, False])
def test_other_paths_are_dropped_than_by_timm(rate, training):
    ours, theirs = DropPath(rate).train(training), TimmDropPath(rate).train(training)
    x = torch.rand(50, 3, 2)
    results = []
    for module in (ours, theirs):
        torch.manual_seed(7)
        results.append((module(x), torch.rand(1)))
    assert torch.equal(*[values for values, _ in results])
    assert torch.equal(*[after for _, after in results])


def test_each_rate_has_a_graph_of_its_own():
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    paths = [DropPath(rate) for rate in (0.1, 0.5, 0.9)]
    x = torch.ones(4000, 2)
    for path in paths:
        block = nn.Sequential(path)
        block.compile(backend=backend)
        dropped = block(x)[:, 0]
        kept = 1 - path.rate
        values = dropped.unique()
        torch.testing.assert_close(values, torch.tensor([0, 1 / kept]))
        assert abs((dropped > 0).float().mean() - kept) < 0.04
    assert len(graphs) == 1
    torch._dynamo.reset()
