"""Published state dicts of the fine stage to ours and back, strict both ways.

One table serves both published versions: v3 has the norm on the image query, v2 has not. Its network sees blue, green,
red; the normalisation is otherwise ours, so that turning the patch embedding's channels is all there is to it.
"""

import math
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from fiber_cli.checkpoints.positions import POSITION_BIAS
from fiber_cli.checkpoints.published.names import to_our_names, to_published_names
from fiber_cli.checkpoints.published.towers import FOLLOWS_FROM_SIZES, position_buffers, position_reasons, towers
from fiber_cli.model.config import FiberConfig
from fiber_cli.model.detector.anchors import STRIDES, make_anchors

IMAGE = "fusion_backbone.backbone.body."
TEXT = "fusion_backbone.language_backbone.body.model."

#: Norms on the outputs of the backbone's last three stages, and the pyramid that they enter.
PYRAMID = {
    "fusion_backbone.backbone.body.norm1.{p}": "detector.norms.0.{p}",
    "fusion_backbone.backbone.body.norm2.{p}": "detector.norms.1.{p}",
    "fusion_backbone.backbone.body.norm3.{p}": "detector.norms.2.{p}",
    "fusion_backbone.backbone.fpn.fpn_inner2.{p}": "detector.fpn.inner.0.{p}",
    "fusion_backbone.backbone.fpn.fpn_inner3.{p}": "detector.fpn.inner.1.{p}",
    "fusion_backbone.backbone.fpn.fpn_inner4.{p}": "detector.fpn.inner.2.{p}",
    "fusion_backbone.backbone.fpn.fpn_layer2.{p}": "detector.fpn.layer.0.{p}",
    "fusion_backbone.backbone.fpn.fpn_layer3.{p}": "detector.fpn.layer.1.{p}",
    "fusion_backbone.backbone.fpn.fpn_layer4.{p}": "detector.fpn.layer.2.{p}",
    "fusion_backbone.backbone.fpn.top_blocks.{p6|p7}.{p}": "detector.fpn.{p6|p7}.{p}",
}
DYHEAD_TOWER = {
    "rpn.head.dyhead_tower.{b}.DyConv.0.conv.{p}": "detector.head.tower.{b}.coarser.{p}",
    "rpn.head.dyhead_tower.{b}.DyConv.0.bn.{p}": "detector.head.tower.{b}.coarser.norm.{p}",
    "rpn.head.dyhead_tower.{b}.DyConv.1.conv.{p}": "detector.head.tower.{b}.same.{p}",
    "rpn.head.dyhead_tower.{b}.DyConv.1.bn.{p}": "detector.head.tower.{b}.same.norm.{p}",
    "rpn.head.dyhead_tower.{b}.DyConv.2.conv.{p}": "detector.head.tower.{b}.finer.{p}",
    "rpn.head.dyhead_tower.{b}.DyConv.2.bn.{p}": "detector.head.tower.{b}.finer.norm.{p}",
    "rpn.head.dyhead_tower.{b}.AttnConv.1.{p}": "detector.head.tower.{b}.gate.{p}",
    "rpn.head.dyhead_tower.{b}.relu.fc.0.{p}": "detector.head.tower.{b}.relu.fc1.{p}",
    "rpn.head.dyhead_tower.{b}.relu.fc.2.{p}": "detector.head.tower.{b}.relu.fc2.{p}",
    "rpn.head.dyhead_tower.{b}.offset.{p}": "detector.head.tower.{b}.offset.{p}",
}
PREDICTIONS = {
    "rpn.head.bbox_pred.{p}": "detector.head.box.{p}",
    "rpn.head.centerness.{p}": "detector.head.centerness.{p}",
    "rpn.head.scales.{l}.scale": "detector.head.scales.{l}",
    "rpn.head.dot_product_projection_text.{p}": "detector.head.text_proj.{p}",
    "rpn.head.{log_scale|bias_lang|bias0}": "detector.head.{log_scale|bias_lang|bias0}",
}
#: Every weight of a fine checkpoint: published template -> ours.
FINE = towers(image=IMAGE, text=TEXT) | PYRAMID | DYHEAD_TOWER | PREDICTIONS
#: Class logits that are computed and never read, frozen at their first values.
UNUSED = ("rpn.head.cls_logits.weight", "rpn.head.cls_logits.bias")
#: An entry that every published model of this stage has.
LANDMARK = f"{IMAGE}layers.0.blocks.0.attn.{POSITION_BIAS}"
#: Published template → why it has no place in our weights.
WITHOUT_PLACE = {
    **position_reasons(image=IMAGE, text=TEXT),
    "rpn.anchor_generator.cell_anchors.{l}": FOLLOWS_FROM_SIZES,
    "rpn.head.cls_logits.{p}": "class logits that are computed and never read, at their first values",
}
_PUBLISHED_PATCHES = f"{IMAGE}patch_embed.proj.weight"
_OUR_PATCHES = "encoder.image.patch_embed.proj.weight"


def fine_buffers(config: FiberConfig) -> dict[str, Tensor]:
    """Buffers that the published fine state dict holds although the configuration determines them."""
    buffers = position_buffers(config, image=IMAGE, text=TEXT)
    one_cell = [(1, 1)] * len(STRIDES)
    for level, anchor in enumerate(make_anchors(one_cell, torch.zeros(())).split(1)):
        buffers[f"rpn.anchor_generator.cell_anchors.{level}"] = anchor
    return buffers


def unread(config: FiberConfig, names: Collection[str]) -> list[str]:
    """See `coarse.unread`."""
    return [*fine_buffers(config), *UNUSED]


def from_published(state: Mapping[str, Tensor], config: FiberConfig, names: Collection[str]) -> dict[str, Tensor]:
    """Weights of a published fine checkpoint under our names, float32, the patch embedding turned to RGB.

    Arguments and errors as for `coarse.from_published`.
    """
    weights = to_our_names(
        state, FINE, names=names, ignored=unread(config, names), check="the sizes and norm_image_query"
    )
    if _OUR_PATCHES in weights:
        weights[_OUR_PATCHES] = weights[_OUR_PATCHES].flip(1)
    return weights


def to_published(weights: Mapping[str, Tensor], config: FiberConfig, *, classes: int = 80) -> dict[str, Tensor]:
    """Our weights under the published fine names, with the buffers and the `classes` unused class logits that the
    published code expects. Raises UserError naming weights that have no published counterpart."""
    state = to_published_names(weights, FINE)
    if _PUBLISHED_PATCHES in state:
        state[_PUBLISHED_PATCHES] = state[_PUBLISHED_PATCHES].flip(1)
    if "detector.head.box.weight" in weights:
        channels = weights["detector.head.box.weight"].shape[1]
        state["rpn.head.cls_logits.weight"] = torch.zeros(classes, channels, 1, 1)
        state["rpn.head.cls_logits.bias"] = torch.full((classes,), -math.log(99))
    return state | fine_buffers(config)
