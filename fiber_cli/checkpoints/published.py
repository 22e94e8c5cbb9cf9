"""Published state dicts to ours and back, by one literal table, strict both ways.

The published names and shapes are those of the released FIBER code (coarse stage). What that code stores but never
uses is listed by `unused_shapes`; it is checked on the way in, not kept, and written with its initial value on the way
out.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor

from fiber_cli.checkpoints import directory as checkpoint
from fiber_cli.data.text import load_tokenizer, special_ids
from fiber_cli.tasks.vqa.data import read_vocabulary
from fiber_cli.errors import UserError, first_names
from fiber_cli.kinds import CONVERTED, REGION_TASKS
from fiber_cli.checkpoints.loading import new_task
from fiber_cli.model.detector.atss import STRIDES, make_anchors
from fiber_cli.model.config import BASE, FiberConfig
from fiber_cli.model.swin import relative_position_index, shift_mask

#: published name -> ours. In braces stands what both names have in common, in the same order: one of several words, or
#: {s} stage, {b} block, {l} text layer, {p} weight or bias, {q} query, key or value
COARSE = {
    "vit_model.patch_embed.{proj|norm}.{p}": "encoder.image.patch_embed.{proj|norm}.{p}",
    "vit_model.layers.{s}.blocks.{b}.{norm1|norm2}.{p}": "encoder.image.stages.{s}.blocks.{b}.{norm1|norm2}.{p}",
    "vit_model.layers.{s}.blocks.{b}.attn.relative_position_bias_table": (
        "encoder.image.stages.{s}.blocks.{b}.attn.relative_position_bias_table"
    ),
    "vit_model.layers.{s}.blocks.{b}.attn.{qkv|proj}.{p}": "encoder.image.stages.{s}.blocks.{b}.attn.{qkv|proj}.{p}",
    "vit_model.layers.{s}.blocks.{b}.attn.norm_i2t_i.{p}": "encoder.image.stages.{s}.blocks.{b}.cross.norm.{p}",
    "vit_model.layers.{s}.blocks.{b}.attn.qkv_i2t.{p}": "encoder.image.stages.{s}.blocks.{b}.cross.query.{p}",
    "vit_model.layers.{s}.blocks.{b}.attn.qkv_text_i2t.{p}": (
        "encoder.image.stages.{s}.blocks.{b}.cross.key_value.{p}"
    ),
    "vit_model.layers.{s}.blocks.{b}.attn.proj_i2t.{p}": "encoder.image.stages.{s}.blocks.{b}.cross.proj.{p}",
    "vit_model.layers.{s}.blocks.{b}.attn.alpha_i2t": "encoder.image.stages.{s}.blocks.{b}.cross.alpha",
    "vit_model.layers.{s}.blocks.{b}.mlp.{fc1|fc2}.{p}": "encoder.image.stages.{s}.blocks.{b}.mlp.{fc1|fc2}.{p}",
    "vit_model.layers.{s}.downsample.{norm|reduction}.{p}": "encoder.image.stages.{s}.merge.{norm|reduction}.{p}",
    "vit_model.norm.{p}": "encoder.image.norm.{p}",
    "text_transformer.embeddings.{word|position|token_type}_embeddings.{p}": (
        "encoder.text.embeddings.{word|position|token_type}.{p}"
    ),
    "text_transformer.embeddings.LayerNorm.{p}": "encoder.text.embeddings.norm.{p}",
    "text_transformer.encoder.layer.{l}.attention.self.{q}.{p}": "encoder.text.layers.{l}.{q}.{p}",
    "text_transformer.encoder.layer.{l}.attention.output.dense.{p}": "encoder.text.layers.{l}.attn_out.{p}",
    "text_transformer.encoder.layer.{l}.attention.output.LayerNorm.{p}": "encoder.text.layers.{l}.attn_norm.{p}",
    "text_transformer.encoder.layer.{l}.intermediate.dense.{p}": "encoder.text.layers.{l}.fc1.{p}",
    "text_transformer.encoder.layer.{l}.output.dense.{p}": "encoder.text.layers.{l}.fc2.{p}",
    "text_transformer.encoder.layer.{l}.output.LayerNorm.{p}": "encoder.text.layers.{l}.out_norm.{p}",
    "text_transformer.encoder.layer.{l}.crossattention_t2i.self.{q}.{p}": "encoder.text.layers.{l}.cross.{q}.{p}",
    "text_transformer.encoder.layer.{l}.crossattention_t2i.output.dense.{p}": "encoder.text.layers.{l}.cross.proj.{p}",
    "text_transformer.encoder.layer.{l}.alpha_t2i": "encoder.text.layers.{l}.cross.alpha",
    "cross_modal_{text|image}_transform.{p}": "pool.{text|image}_transform.{p}",
    "cross_modal_{text|image}_pooler.dense.{p}": "pool.{text|image}_pooler.{p}",
    "cross_modal_{text|image}_transform_itc.{p}": "itc_pool.{text|image}_transform.{p}",
    "cross_modal_{text|image}_pooler_itc.dense.{p}": "itc_pool.{text|image}_pooler.{p}",
    "mlm_score.transform.dense.{p}": "mlm.dense.{p}",
    "mlm_score.transform.LayerNorm.{p}": "mlm.norm.{p}",
    "mlm_score.decoder.weight": "mlm.decoder.weight",
    "mlm_score.bias": "mlm.bias",
    "itm_score.fc.{p}": "itm.fc.{p}",
    "temp": "temperature",
    "{vqa|nlvr2}_classifier.0.{p}": "{vqa|nlvr2}.fc1.{p}",
    "{vqa|nlvr2}_classifier.1.{p}": "{vqa|nlvr2}.norm.{p}",
    "{vqa|nlvr2}_classifier.3.{p}": "{vqa|nlvr2}.fc2.{p}",
    "cross_modal_att_layers.{l}.{p}": "encoder.memory_proj.{l}.{p}",
}

_FIELDS = {"s": r"\d+", "b": r"\d+", "l": r"\d+", "p": "weight|bias", "q": "query|key|value"}

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


@functools.cache
def _pattern(template: str) -> re.Pattern:
    return re.compile(re.sub(r"{(.+?)}", lambda m: f"({_FIELDS.get(m[1], m[1])})", template.replace(".", r"\.")))


def rename(name: str, table: dict[str, str]) -> str | None:
    """The name's counterpart in a table like `COARSE`, or None."""
    for template, target in table.items():
        if match := _pattern(template).fullmatch(name):
            return re.sub(r"{.+?}", "{}", target).format(*match.groups())
    return None


def _position_buffers(config: FiberConfig, image: str, text: str) -> dict[str, Tensor]:
    """Positions that published state dicts of both stages hold, below the prefixes of the two towers."""
    buffers = {f"{text}embeddings.position_ids": torch.arange(config.text.positions)[None]}
    index = relative_position_index(*(config.image.window,) * 3)
    for stage, depth in enumerate(config.image.depths):
        for block in range(depth):
            buffers[f"{image}layers.{stage}.blocks.{block}.attn.relative_position_index"] = index
    return buffers


def derived_buffers(config: FiberConfig) -> dict[str, Tensor]:
    """Buffers that the published state dict holds although the configuration determines them."""
    buffers, image = _position_buffers(config, "vit_model.", "text_transformer."), config.image
    for stage, depth in enumerate(image.depths):
        size = tuple(side // (image.patch * 2**stage) for side in config.image_size)
        if max(size) > image.window:
            mask = shift_mask(size, (image.window,) * 2, (image.window // 2,) * 2)
            buffers |= {f"vit_model.layers.{stage}.blocks.{block}.attn_mask": mask for block in range(1, depth, 2)}
    return buffers


def unused_shapes(config: FiberConfig, names: Collection[str]) -> dict[str, tuple[int, ...]]:
    """Published names and shapes of the learned tensors that the published model carries and never reads, where ours
    has the parameters `names`: gates of unfused text layers, norms, poolers, and what only other tasks use."""
    hidden, names = config.text.hidden, set(names)

    def linear(name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}

    shapes = linear("text_transformer.pooler.dense", hidden, hidden)
    fused = {layer for _, _, layer in config.fused_pairs}
    for layer in range(config.text.layers):
        prefix = f"text_transformer.encoder.layer.{layer}"
        if layer in fused:
            for p in ("weight", "bias"):
                shapes[f"{prefix}.crossattention_t2i.output.LayerNorm.{p}"] = (hidden,)
        else:
            shapes[f"{prefix}.alpha_t2i"] = (1,)
    if "itm.fc.weight" in names:
        shapes |= linear("rank_output", 1, 2 * config.hidden)
    if not any(name.startswith("itc_pool.") for name in names):
        for tower, width in (("text", hidden), ("image", config.image.dims[-1])):
            shapes |= linear(f"cross_modal_{tower}_transform_itc", config.hidden, width)
            if config.itc_pooler:
                shapes |= linear(f"cross_modal_{tower}_pooler_itc.dense", config.hidden, config.hidden)
    memory = {int(name.split(".")[2]) for name in names if name.startswith("encoder.memory_proj.")}
    for layer in set(range(max(memory, default=-1) + 1)) - memory:
        shapes |= linear(f"cross_modal_att_layers.{layer}", *config.image.dims[-2:])
    return shapes


def from_official(state: dict[str, Tensor], config: FiberConfig, names: Collection[str]) -> dict[str, Tensor]:
    """Weights of a published coarse checkpoint under our names, float32.

    state: published name -> tensor. names: the parameters that our model has (`dict(task.named_parameters())`).
    Raises UserError that lists every key which is neither in the table, nor a derived buffer, nor unused, and every
    parameter of ours that the checkpoint lacks.
    """
    ignored = {*derived_buffers(config), *unused_shapes(config, names), *QUEUE}
    ours = _ours(state, set(names), COARSE, ignored, "the task and the sizes")
    if "temperature" in ours:
        # The published one has no dimension, ours has one (DeepSpeed cannot partition a scalar).
        ours["temperature"] = ours["temperature"].reshape(1)
    return ours


def _ours(
    state: dict[str, Tensor], names: set[str], table: dict[str, str], ignored: set[str], what: str
) -> dict[str, Tensor]:
    """The state under our names, float32; UserError where keys and `names` do not match one to one."""
    targets = {key: rename(key, table) for key in state if key not in ignored}
    unknown = sorted(key for key, target in targets.items() if target not in names)
    missing = sorted(names.difference(targets.values()))
    if unknown or missing:
        raise UserError(
            "this is not a published checkpoint of the model that was asked for: "
            f"keys without a place in it: {first_names(unknown)}; "
            f"parameters that it lacks: {first_names(missing)}; check {what}"
        )
    return {target: state[key].float() for key, target in targets.items()}


def _theirs(weights: dict[str, Tensor], table: dict[str, str]) -> dict[str, Tensor]:
    """The weights under the published names; UserError where some have none."""
    inverse = {ours: theirs for theirs, ours in table.items()}
    names = {name: rename(name, inverse) for name in weights}
    if unknown := [name for name, target in names.items() if target is None]:
        raise UserError(f"weights without a published name: {first_names(unknown)}")
    return {target: weights[name] for name, target in names.items()}


def to_official(weights: dict[str, Tensor], config: FiberConfig) -> dict[str, Tensor]:
    """Our weights under the published names, with the buffers and unused tensors that the published code expects.

    `rank_output` gets the matched row of the ITM head, which is how the published model ties them. The queue, which
    the published loader drops, is left out. Raises UserError naming weights that have no published counterpart.
    """
    official = _theirs(weights, COARSE)
    if "temp" in official:
        official["temp"] = official["temp"].reshape(())
    for name, shape in unused_shapes(config, weights).items():
        ones = name.endswith("LayerNorm.weight")
        official[name] = torch.ones(shape) if ones else torch.zeros(shape)
    if "itm.fc.weight" in weights:
        official["rank_output.weight"] = weights["itm.fc.weight"][1:2].clone()
        official["rank_output.bias"] = weights["itm.fc.bias"][1:2].clone()
    return official | derived_buffers(config)


def read_official(path: Path) -> dict[str, Tensor]:
    """State dict of a published `.ckpt`/`.pt` file, read with the restricted unpickler (tensors only)."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such checkpoint file") from error
    except Exception as error:  # torch raises several kinds for damaged or unsafe files
        raise UserError(
            f"{path}: not readable as a checkpoint of plain tensors ({type(error).__name__}: "
            f"{str(error).splitlines()[0]}); if it holds other objects, save its state dict alone first"
        ) from error
    state = content.get("state_dict", content.get("model", content)) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise UserError(f"{path}: holds no state dict (a mapping from names to tensors)")
    if all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): tensor for key, tensor in state.items()}
    return state


def convert_file(source: Path, output: Path, *, task: str, tokenizer: str, answers: Path | None = None) -> Path:
    """Write a published FIBER-B checkpoint file as a checkpoint directory below `output`; returns that directory.

    task: one of `CONVERTED`. The image size follows from the position-bias tables (32 pixels a window cell). answers:
    VQA's vocabulary, in the order of the classifier. Raises UserError for a file that is not such a checkpoint,
    listing what does not fit.
    """
    state, region = read_official(source), task in REGION_TASKS
    table = state.get(f"{_BODY if region else 'vit_model.'}layers.0.blocks.0.attn.relative_position_bias_table")
    if table is None:
        stage = "fine" if region else "coarse"
        raise UserError(f"{source}: not a published {stage}-stage FIBER checkpoint: it has no {stage} image tower")
    side = 32 * ((math.isqrt(len(table)) + 1) // 2)
    config = BASE.at_image_size((side, side))
    preprocessing = {"image_size": [side, side]}
    if region:
        image = dataclasses.replace(config.image, fixed_window=True)
        norm = any("norm_i2t_i" in key for key in state)
        config = dataclasses.replace(config, image=image, norm_image_query=norm)
        preprocessing |= {"short_side": 800, "longest_side": 1333, "published_names": True}
    name, settings, text_length = CONVERTED[task]
    words = load_tokenizer(tokenizer)
    if name == "caption":
        settings = {"max_length": text_length, **special_ids(words)}
    labels = None
    if name == "vqa":
        if answers is None:
            raise UserError(
                "a VQA checkpoint needs its vocabulary: make it with `fiber vqa-answers`, give it as --answers"
            )
        labels = read_vocabulary(answers)
        count = len(state.get("vqa_classifier.3.bias", ()))
        if count != len(labels):
            raise UserError(f"{answers} has {len(labels)} answers, the classifier of {source} has {count}")
    description = {
        "model": config.to_dict(),
        "task": {"name": name, **settings},
        "preprocessing": {**preprocessing, "text_length": text_length},
        "labels": labels,
        "tokenizer": tokenizer,
    }
    with torch.device("meta"):
        names = dict(new_task(description).named_parameters())
    weights = (from_official_fine if region else from_official)(state, config, names)
    wrong = [
        f"{n} {tuple(t.shape)} for {tuple(names[n].shape)}" for n, t in weights.items() if t.shape != names[n].shape
    ]
    if wrong:
        raise UserError(f"{source}: not of the base model's sizes: {first_names(wrong)}")
    return checkpoint.save(output, 0, config=description, weights=weights, tokenizer=words)


_BODY, _LANGUAGE = "fusion_backbone.backbone.body.", "fusion_backbone.language_backbone.body.model."
#: The fine stage's table, like `COARSE`, for both of its versions: v3 has the norm on the image query, v2 has not.
FINE = {
    official.replace("vit_model.", _BODY).replace("text_transformer.", _LANGUAGE): ours
    for official, ours in COARSE.items()
    if official.startswith(("vit_model.", "text_transformer.")) and not official.startswith("vit_model.norm.")
} | {
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
    "rpn.head.bbox_pred.{p}": "detector.head.box.{p}",
    "rpn.head.centerness.{p}": "detector.head.centerness.{p}",
    "rpn.head.scales.{l}.scale": "detector.head.scales.{l}",
    "rpn.head.dot_product_projection_text.{p}": "detector.head.text_proj.{p}",
    "rpn.head.{log_scale|bias_lang|bias0}": "detector.head.{log_scale|bias_lang|bias0}",
    "fusion_backbone.backbone.fpn.top_blocks.{p6|p7}.{p}": "detector.fpn.{p6|p7}.{p}",
}
for _stage in (1, 2, 3):
    FINE[f"{_BODY}norm{_stage}.{{p}}"] = f"detector.norms.{_stage - 1}.{{p}}"
    FINE[f"fusion_backbone.backbone.fpn.fpn_inner{_stage + 1}.{{p}}"] = f"detector.fpn.inner.{_stage - 1}.{{p}}"
    FINE[f"fusion_backbone.backbone.fpn.fpn_layer{_stage + 1}.{{p}}"] = f"detector.fpn.layer.{_stage - 1}.{{p}}"
#: The published network sees blue, green, red; the normalisation is otherwise the same.
_BGR_WEIGHT, _PATCHES = f"{_BODY}patch_embed.proj.weight", "encoder.image.patch_embed.proj.weight"
#: Class logits that are computed and never read, frozen at their first values.
_FINE_UNUSED = {"rpn.head.cls_logits.weight", "rpn.head.cls_logits.bias"}


def fine_buffers(config: FiberConfig) -> dict[str, Tensor]:
    """Buffers that the published fine state dict holds although the configuration determines them."""
    anchors = make_anchors([(1, 1)] * len(STRIDES), torch.zeros(())).split(1)
    levels = {f"rpn.anchor_generator.cell_anchors.{level}": anchor for level, anchor in enumerate(anchors)}
    return _position_buffers(config, _BODY, _LANGUAGE) | levels


def from_official_fine(state: dict[str, Tensor], config: FiberConfig, names: Collection[str]) -> dict[str, Tensor]:
    """Weights of a published fine checkpoint under our names, float32, the patch embedding turned to RGB.

    Arguments and errors as for `from_official`.
    """
    ignored = {*_FINE_UNUSED, *fine_buffers(config)}
    ours = _ours(state, set(names), FINE, ignored, "the sizes and norm_image_query")
    if _PATCHES in ours:
        ours[_PATCHES] = ours[_PATCHES].flip(1)
    return ours


def to_official_fine(weights: dict[str, Tensor], config: FiberConfig, *, classes: int = 80) -> dict[str, Tensor]:
    """Our weights under the published fine names, with the buffers and the `classes` unused class logits that the
    published code expects. Raises UserError naming weights that have no published counterpart."""
    official = _theirs(weights, FINE)
    if _BGR_WEIGHT in official:
        official[_BGR_WEIGHT] = official[_BGR_WEIGHT].flip(1)
    if "detector.head.box.weight" in weights:
        channels = weights["detector.head.box.weight"].shape[1]
        official["rpn.head.cls_logits.weight"] = torch.zeros(classes, channels, 1, 1)
        official["rpn.head.cls_logits.bias"] = torch.full((classes,), -math.log(99))
    return official | fine_buffers(config)
