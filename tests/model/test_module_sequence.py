"""The list is torch's own in all but its type."""

import copy

from torch import nn

from fiber_cli.model.module_sequence import ModuleSequence


def test_it_behaves_as_a_module_list():
    layers: ModuleSequence[nn.Linear] = ModuleSequence(nn.Linear(2, width) for width in (3, 4, 5))
    assert isinstance(layers, nn.ModuleList)
    assert [layer.out_features for layer in layers] == [3, 4, 5]
    assert layers[-1].out_features == 5
    assert [layer.out_features for layer in layers[1:]] == [4, 5]
    assert list(layers.state_dict()) == list(nn.ModuleList(layers).state_dict())
    assert [layer.out_features for layer in copy.deepcopy(layers)] == [3, 4, 5]
