"""What turns a fused pass into boxes with a score for every text token (fine stage, paper section 3.3).

The encoder stays outside, so that one image stem serves the prompts of all chunks: `Detector` takes what
`FusedEncoder.fuse(..., last_norm=True)` returns. Shapes: B batch, N anchors of all levels, C channels, L text length.
"""

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fiber_cli.boxes import class_nms
from fiber_cli.errors import UserError
from fiber_cli.model.detector.atss import STRIDES, decode, make_anchors
from fiber_cli.model.config import DetectorConfig, FiberConfig
from fiber_cli.model.detector.dyhead import DyBlock
from fiber_cli.model.detector.fpn import Fpn
from fiber_cli.model.fusion import Fused


class HeadOutput(NamedTuple):
    """Float32. `deltas` (B, N, 4) relative to the anchors; `centerness` (B, N) and `logits` (B, N, L) before the
    sigmoid; `sizes`: (height, width) of the levels, finest first."""

    deltas: Tensor
    centerness: Tensor
    logits: Tensor
    sizes: tuple[tuple[int, int], ...]


class Detections(NamedTuple):
    """Of one image, best first: `boxes` (K, 4) xyxy in its pixels, `scores` (K,), `labels` int64 (K,)."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor


class TokenHead(nn.Module):
    """DynamicHead tower, then box, centerness and the alignment of every anchor with every token."""

    def __init__(self, channels: int, blocks: int, text_dim: int, log_scale: float = 0.0):
        super().__init__()
        self.tower = nn.ModuleList(DyBlock(channels) for _ in range(blocks))
        self.box = nn.Conv2d(channels, 4, 1)
        self.centerness = nn.Conv2d(channels, 1, 1)
        self.scales = nn.ParameterList(torch.ones(1) for _ in STRIDES)
        self.text_proj = nn.Linear(text_dim, channels)
        self.log_scale = nn.Parameter(torch.full((1,), log_scale))
        self.bias_lang = nn.Parameter(torch.zeros(text_dim))
        #: Every token starts with a probability of 0.01.
        self.bias0 = nn.Parameter(torch.full((1,), -math.log(99)))
        for conv in (self.box, self.centerness):
            nn.init.normal_(conv.weight, std=0.01)
            nn.init.zeros_(conv.bias)

    def forward(self, levels: list[Tensor], text_BLC: Tensor) -> HeadOutput:
        """levels: (B, C, H_l, W_l) each; text_BLC: text states, 0 at padding positions."""
        for block in self.tower:
            levels = block(levels)

        def rows(maps: list[Tensor]) -> Tensor:
            return torch.cat([x.flatten(2).transpose(1, 2) for x in maps], 1)

        embedded = F.normalize(text_BLC, dim=-1)
        tokens_BLC = self.text_proj(embedded / 2) * torch.exp(-self.log_scale)
        bias_BL = embedded @ self.bias_lang + self.bias0
        logits = rows(levels) @ tokens_BLC.transpose(1, 2) + bias_BL[:, None]
        wide = torch.promote_types(logits.dtype, torch.float32)
        return HeadOutput(
            rows([scale * self.box(x) for scale, x in zip(self.scales, levels)]).to(wide),
            rows([self.centerness(x) for x in levels]).squeeze(-1).to(wide),
            logits.to(wide).clamp(-50000, 50000),
            tuple((x.shape[-2], x.shape[-1]) for x in levels),
        )


class Detector(nn.Module):
    """Norms on the last three stage outputs, feature pyramid and head. UserError unless the stages have the strides
    8, 16 and 32."""

    def __init__(self, config: FiberConfig, detector: DetectorConfig):
        super().__init__()
        image = config.image
        strides = tuple(image.patch * 2**stage for stage in range(len(image.depths)))[-3:]
        if strides != STRIDES[:3]:
            raise UserError(
                f"patch={image.patch} and depths={image.depths} give stages of strides {strides} at the end; the "
                f"detector needs {STRIDES[:3]}: use patch 4 with four stages or patch 8 with three"
            )
        dims = image.dims[-3:]
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for dim in dims)
        self.fpn = Fpn(dims, detector.channels, detector.drop_block)
        self.head = TokenHead(detector.channels, detector.blocks, config.text.hidden, detector.log_scale)

    def forward(self, fused: Fused) -> HeadOutput:
        """The output of a fused pass with the last text LayerNorm on -> HeadOutput."""
        maps = [norm(x).permute(0, 3, 1, 2) for norm, x in zip(self.norms, fused.pyramid[-3:])]
        return self.head(self.fpn(maps), fused.text * fused.mask[:, :, None])


def postprocess(
    out: HeadOutput,
    image: int,
    size: tuple[int, int],
    tokens: Sequence[Sequence[int]],
    *,
    score_threshold: float = 0.05,
    pre_nms_topk: int = 1000,
    nms_iou: float = 0.6,
    max_detections: int = 100,
    aggregation: str = "mean",
) -> Detections:
    """Detections of one image of a batch, in the pixels of the network's input.

    size: true (height, width) of the image, boxes are clipped to it. tokens: the token positions of every label; a
    label's score is the "mean" or the "max" of its tokens' probabilities, and a label without tokens is never found.
    Candidates are the (anchor, label) pairs scored above `score_threshold`, on every level the best `pre_nms_topk`
    by score times centerness; the reported score is the root of that product. `max_detections` may be exceeded by
    ties.
    """
    device = out.logits.device
    columns = torch.tensor([t for label in tokens for t in label], dtype=torch.long, device=device)
    lengths = torch.tensor([len(label) for label in tokens], dtype=torch.long, device=device)
    # Neither a matrix product, which autocast or TF32 would round, nor padding to the longest label. An empty label
    # gets NaN or -inf.
    scores_JN = torch.segment_reduce(out.logits[image].T[columns].sigmoid(), aggregation, lengths=lengths, axis=0)
    quality = torch.where(scores_JN > score_threshold, scores_JN * out.centerness[image].sigmoid(), -1.0)
    pairs = [height * width * len(tokens) for height, width in out.sizes]
    best = [level.topk(min(pre_nms_topk, len(level))) for level in quality.T.flatten().split(pairs)]
    ranking = torch.cat([values for values, _ in best])
    place = torch.cat([places + first for (_, places), first in zip(best, accumulate(pairs, initial=0))])
    place, scores = place[ranking >= 0], ranking[ranking >= 0].sqrt()
    anchor, label = place // len(tokens), place % len(tokens)
    height, width = size
    boxes = decode(out.deltas[image][anchor], make_anchors(out.sizes, out.deltas)[anchor])
    boxes = torch.minimum(boxes.clamp(min=0), boxes.new_tensor([width - 1, height - 1] * 2))
    kept = class_nms(boxes, scores, label, nms_iou)
    if len(kept) > max_detections:
        kept = kept[scores[kept] >= scores[kept[max_detections - 1]]]
    return Detections(boxes[kept], scores[kept], label[kept])


#: The settings of `postprocess` and their defaults.
POSTPROCESSING = postprocess.__kwdefaults__
