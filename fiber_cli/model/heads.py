"""Small networks on top of the fused encoder: poolers, MLM and ITM heads, classifiers.

Shapes: B batch, H and W sides of the last token map, L text length, C tower width, D joint width, V vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fiber_cli.model.config import FiberConfig
from fiber_cli.model.init import initialise
from fiber_cli.model.linear import Linear
from fiber_cli.model.norm import LayerNorm


class PairPooler(nn.Module):
    """Projects both towers to the joint width and pools them: text at its first token, image by its mean.

    `pooler=False` leaves out the dense + tanh step (published option of the ITC pair); None: as the configuration has
    it for pairs. `alone`: of towers that run alone, as ITC's, whose maps come normalised, and not of a fused pass.
    """

    def __init__(self, config: FiberConfig, *, pooler: bool | None = None, alone: bool = False):
        super().__init__()
        pooler = config.pair_pooler if pooler is None else pooler
        image_dim = config.image.dims[-1] if alone else config.fused_image_dim
        text_dim = config.text.hidden if alone else config.fused_text_dim
        norms = config.norm_image_memory and not alone
        self.image_norm = LayerNorm(image_dim) if norms else nn.Identity()
        self.text_transform = Linear(text_dim, config.hidden)
        self.image_transform = Linear(image_dim, config.hidden)
        self.text_pooler = Linear(config.hidden, config.hidden) if pooler else None
        self.image_pooler = Linear(config.hidden, config.hidden) if pooler else None
        # The streams that come in are not normalised; larger weights would saturate the tanh.
        initialise(self, config.init_std or 0.05)

    def text(self, tokens_BLC: Tensor) -> Tensor:
        """(B, L, C) -> pooled (B, D). Only the first token is read."""
        x = self.text_transform(tokens_BLC[:, 0])
        if self.text_pooler is None:
            return x
        return torch.tanh(self.text_pooler(x))

    def image(self, map_BHWC: Tensor) -> Tensor:
        """(B, H, W, C) -> pooled (B, D)."""
        # The mean of a linear map is the map of the mean, at 1/(H*W) of the cost.
        x = self.image_transform(self.image_norm(map_BHWC.mean((1, 2))))
        if self.image_pooler is None:
            return x
        return torch.tanh(self.image_pooler(x))

    def forward(self, map_BHWC: Tensor, tokens_BLC: Tensor) -> Tensor:
        """Pooled text and image side by side, (B, 2*D): what ITM, VQA and NLVR2 classify."""
        return torch.cat([self.text(tokens_BLC), self.image(map_BHWC)], dim=1)


class MlmHead(nn.Module):
    """Vocabulary logits of masked-language modelling and captioning; not tied to the word embeddings."""

    def __init__(self, config: FiberConfig):
        super().__init__()
        self.dense = Linear(config.hidden, config.hidden)
        self.norm = LayerNorm(config.hidden, eps=config.mlm_norm_eps)
        self.decoder = Linear(config.hidden, config.text.vocab, bias=False)
        self.bias = nn.Parameter(torch.zeros(config.text.vocab))
        initialise(self, config.init_std)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., V)."""
        hidden = self.norm(F.gelu(self.dense(x)))
        return self.decoder(hidden) + self.bias


class ItmHead(nn.Module):
    """Two logits per pair; index 1 means matched. That logit is the fusion score of retrieval."""

    def __init__(self, config: FiberConfig):
        super().__init__()
        self.fc = Linear(2 * config.hidden, 2)
        initialise(self, config.init_std)

    def forward(self, pooled: Tensor) -> Tensor:
        """(B, 2*D) -> (B, 2)."""
        return self.fc(pooled)


class Classifier(nn.Module):
    """Two-layer classifier of pooled vectors: VQA's answers, NLVR2's two labels."""

    def __init__(self, config: FiberConfig, inputs: int, outputs: int):
        super().__init__()
        self.fc1 = Linear(inputs, 2 * config.hidden)
        self.norm = LayerNorm(2 * config.hidden)
        self.fc2 = Linear(2 * config.hidden, outputs)
        initialise(self, config.init_std)

    def forward(self, pooled: Tensor) -> Tensor:
        """(B, inputs) -> (B, outputs)."""
        hidden = F.gelu(self.norm(self.fc1(pooled)))
        return self.fc2(hidden)
