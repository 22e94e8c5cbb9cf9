"""Stochastic depth is timm's, and in a compiled graph the same with a rate that is read."""

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
        kept = 1 - path.drop_prob
        values = dropped.unique()
        torch.testing.assert_close(values, torch.tensor([0, 1 / kept]))
        assert abs((dropped > 0).float().mean() - kept) < 0.04
    assert len(graphs) == 1
    torch._dynamo.reset()
