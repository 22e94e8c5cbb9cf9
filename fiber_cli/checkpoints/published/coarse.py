"""Published state dicts of the coarse stage to ours and back, strict both ways.

The published names and shapes are those of the released FIBER code. What that code stores but never uses is listed by
`unused_shapes`, the reason for each in WITHOUT_PLACE; it is no part of our weights, and written with its initial value
on the way out where nothing else is known of it (see `unread`).
"""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from fiber_cli.checkpoints.positions import POSITION_BIAS
from fiber_cli.checkpoints.published.names import to_our_names, to_published_names
from fiber_cli.checkpoints.published.towers import FOLLOWS_FROM_SIZES, position_buffers, position_reasons, towers
from fiber_cli.model.config import FiberConfig
from fiber_cli.model.windows import shift_mask

IMAGE, TEXT = "vit_model.", "text_transformer."

POOLERS = {
    "cross_modal_{text|image}_transform.{p}": "pool.{text|image}_transform.{p}",
    "cross_modal_{text|image}_pooler.dense.{p}": "pool.{text|image}_pooler.{p}",
    "cross_modal_{text|image}_transform_itc.{p}": "itc_pool.{text|image}_transform.{p}",
    "cross_modal_{text|image}_pooler_itc.dense.{p}": "itc_pool.{text|image}_pooler.{p}",
}
PRETRAINING_HEADS = {
    "mlm_score.transform.dense.{p}": "mlm.dense.{p}",
    "mlm_score.transform.LayerNorm.{p}": "mlm.norm.{p}",
    "mlm_score.decoder.weight": "mlm.decoder.weight",
    "mlm_score.bias": "mlm.bias",
    "itm_score.fc.{p}": "itm.fc.{p}",
    "temp": "temperature",
}
FINE_TUNING_HEADS = {
    "{vqa|nlvr2}_classifier.0.{p}": "{vqa|nlvr2}.fc1.{p}",
    "{vqa|nlvr2}_classifier.1.{p}": "{vqa|nlvr2}.norm.{p}",
    "{vqa|nlvr2}_classifier.3.{p}": "{vqa|nlvr2}.fc2.{p}",
    "cross_modal_att_layers.{l}.{p}": "encoder.memory_proj.{l}.{p}",
}
#: Every weight of a coarse checkpoint: published template -> ours.
COARSE = {
    **towers(image=IMAGE, text=TEXT),
    "vit_model.norm.{p}": "encoder.image.norm.{p}",
    **POOLERS,
    **PRETRAINING_HEADS,
    **FINE_TUNING_HEADS,
}
#: An entry that every published model of this stage has.
LANDMARK = f"{IMAGE}layers.0.blocks.0.attn.{POSITION_BIAS}"
#: State of the published pre-training queue, pixels included; the published loader drops it as well.
QUEUE = (
    "image_queue",
    "text_queue",
    "image_input_queue",
    "text_input_queue",
    "text_input_mask_queue",
    "queue_ptr",
    "queue_total",
)

#: Published template → why it has no place in our weights.
WITHOUT_PLACE = {
    **position_reasons(image=IMAGE, text=TEXT),
    "vit_model.layers.{s}.blocks.{b}.attn_mask": FOLLOWS_FROM_SIZES,
    "text_transformer.pooler.dense.{p}": "RoBERTa's own pooler, which no pass reads",
    "text_transformer.encoder.layer.{l}.crossattention_t2i.output.LayerNorm.{p}": "a norm that no pass reads",
    "text_transformer.encoder.layer.{l}.alpha_t2i": "a gate of a layer without fusion, in front of nothing",
    "rank_output.{p}": "a copy of the matched row of itm_score that does not learn; ours ranks by the row itself",
    "cross_modal_{text|image}_{transform|pooler}_itc.{p}": "the ITC pooler, which this task does not read",
    "cross_modal_{text|image}_{transform|pooler}_itc.dense.{p}": "the ITC pooler, which this task does not read",
    "cross_modal_att_layers.{l}.{p}": "a projection for a layer that reads no image",
    "|".join(QUEUE).join("{}"): "the queue of pre-training, which the published loader drops too",
}

Shape = tuple[int, ...]


def derived_buffers(config: FiberConfig) -> dict[str, Tensor]:
    """Buffers that the published state dict holds although the configuration determines them."""
    buffers = position_buffers(config, image=IMAGE, text=TEXT)
    height, width = config.image_size
    for stage, depth in enumerate(config.image.depths):
        window = config.image.window_of(stage)
        stride = config.image.patch * 2**stage
        size = height // stride, width // stride
        if max(size) > window:
            mask = shift_mask(size, (window, window), (window // 2, window // 2))
            for block in range(1, depth, 2):
                buffers[f"{IMAGE}layers.{stage}.blocks.{block}.attn_mask"] = mask
    return buffers


def unused_shapes(config: FiberConfig, names: Collection[str]) -> dict[str, Shape]:
    """Published names and shapes of the learned tensors that the published model carries and never reads, where ours
    has the parameters `names`: gates of unfused text layers, norms, poolers, and what only other tasks use."""
    shapes = _linear(f"{TEXT}pooler.dense", config.text.hidden, config.text.hidden)
    shapes |= _unused_text_fusion(config)
    if "itm.fc.weight" in names:
        shapes |= _linear("rank_output", 1, 2 * config.hidden)
    if not any(name.startswith("itc_pool.") for name in names):
        shapes |= _unused_itc_pooler(config)
    return shapes | _unused_memory_projections(config, names)


def _linear(name: str, outputs: int, inputs: int) -> dict[str, Shape]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _unused_text_fusion(config: FiberConfig) -> dict[str, Shape]:
    """Fused layers have a norm too many, the others a gate in front of nothing."""
    shapes: dict[str, Shape] = {}
    fused = {layer for _, _, layer in config.fused_pairs}
    for layer in range(config.text.layers):
        prefix = f"{TEXT}encoder.layer.{layer}"
        if layer in fused:
            shapes[f"{prefix}.crossattention_t2i.output.LayerNorm.weight"] = (config.text.hidden,)
            shapes[f"{prefix}.crossattention_t2i.output.LayerNorm.bias"] = (config.text.hidden,)
        else:
            shapes[f"{prefix}.alpha_t2i"] = (1,)
    return shapes


def _unused_itc_pooler(config: FiberConfig) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {}
    for tower, width in (("text", config.text.hidden), ("image", config.image.dims[-1])):
        shapes |= _linear(f"cross_modal_{tower}_transform_itc", config.hidden, width)
        if config.itc_pooler:
            shapes |= _linear(f"cross_modal_{tower}_pooler_itc.dense", config.hidden, config.hidden)
    return shapes


def _unused_memory_projections(config: FiberConfig, names: Collection[str]) -> dict[str, Shape]:
    """The captioner's projections of the image for the text layers before the first that reads one."""
    used = {int(name.split(".")[2]) for name in names if name.startswith("encoder.memory_proj.")}
    shapes: dict[str, Shape] = {}
    for layer in set(range(max(used, default=-1) + 1)) - used:
        shapes |= _linear(f"cross_modal_att_layers.{layer}", *config.image.dims[-2:])
    return shapes


def unread(config: FiberConfig, names: Collection[str]) -> list[str]:
    """Published names of what has no place in our weights and is written on the way out, where ours has the parameters
    `names`."""
    return [*derived_buffers(config), *unused_shapes(config, names)]


def from_published(state: Mapping[str, Tensor], config: FiberConfig, names: Collection[str]) -> dict[str, Tensor]:
    """Weights of a published coarse checkpoint under our names, float32.

    state: published name -> tensor. names: the parameters that our model has (`dict(task.named_parameters())`).
    Raises UserError that lists every key which is neither in the table, nor a derived buffer, nor unused, and every
    parameter of ours that the checkpoint lacks.
    """
    ignored = {*unread(config, names), *QUEUE}
    weights = to_our_names(state, COARSE, names=names, ignored=ignored, check="the task and the sizes")
    if "temperature" in weights:
        # The published one has no dimension, ours has one (DeepSpeed cannot partition a scalar).
        weights["temperature"] = weights["temperature"].reshape(1)
    return weights


def to_published(weights: Mapping[str, Tensor], config: FiberConfig) -> dict[str, Tensor]:
    """Our weights under the published names, with the buffers and unused tensors that the published code expects.

    `rank_output` gets the matched row of the ITM head, which is how the published model ties them. The queue, which
    the published loader drops, is left out. Raises UserError naming weights that have no published counterpart.
    """
    state = to_published_names(weights, COARSE)
    if "temp" in state:
        state["temp"] = state["temp"].reshape(())
    for name, shape in unused_shapes(config, weights).items():
        ones = name.endswith("LayerNorm.weight")
        state[name] = torch.ones(shape) if ones else torch.zeros(shape)
    if "itm.fc.weight" in weights:
        state["rank_output.weight"] = weights["itm.fc.weight"][1:2].clone()
        state["rank_output.bias"] = weights["itm.fc.bias"][1:2].clone()
    return state | derived_buffers(config)
