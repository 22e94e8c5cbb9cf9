"""How fresh weights start."""

from torch import nn


def initialise(module: nn.Module, std: float | None) -> None:
    """Every linear layer below `module`: normal weights of deviation `std` (None: 1 / sqrt(inputs)), zero biases.
    Embeddings: normal(0, 0.02), the padding row 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5 if std is None else std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.Embedding):
            nn.init.normal_(layer.weight, std=0.02)
            if layer.padding_idx is not None:
                nn.init.zeros_(layer.weight.data[layer.padding_idx])
