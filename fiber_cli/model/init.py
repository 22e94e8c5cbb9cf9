"""How fresh weights start."""

from torch import nn


def initialise(module: nn.Module, std: float | None) -> None:
    """Every linear layer below `module`: normal weights of deviation `std` (None: 1 / sqrt(inputs)), zero biases.
    Embeddings: normal(0, 0.02), the padding row 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            deviation = layer.in_features**-0.5 if std is None else std
            nn.init.normal_(layer.weight, std=deviation)
            zero_bias(layer)
        elif isinstance(layer, nn.Embedding):
            nn.init.normal_(layer.weight, std=0.02)
            if layer.padding_idx is not None:
                padding_row = layer.weight.data[layer.padding_idx]
                nn.init.zeros_(padding_row)


def zero_bias(layer: nn.Linear | nn.Conv2d) -> None:
    """Set the bias to 0 where the layer has one."""
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
