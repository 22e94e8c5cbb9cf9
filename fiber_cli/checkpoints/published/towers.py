"""The image and the text tower in published state dicts: tables of names and buffers, below any prefixes.

The fine stage holds the same towers as the coarse one, under other prefixes. Tables: see `names`.
"""

import torch
from torch import Tensor

from fiber_cli.checkpoints.published.names import below
from fiber_cli.model.config import FiberConfig
from fiber_cli.model.windows import relative_position_index

SWIN = {
    "patch_embed.{proj|norm}.{p}": "patch_embed.{proj|norm}.{p}",
    "layers.{s}.blocks.{b}.{norm1|norm2}.{p}": "stages.{s}.blocks.{b}.{norm1|norm2}.{p}",
    "layers.{s}.blocks.{b}.attn.relative_position_bias_table": (
        "stages.{s}.blocks.{b}.attn.relative_position_bias_table"
    ),
    "layers.{s}.blocks.{b}.attn.{qkv|proj}.{p}": "stages.{s}.blocks.{b}.attn.{qkv|proj}.{p}",
    "layers.{s}.blocks.{b}.mlp.{fc1|fc2}.{p}": "stages.{s}.blocks.{b}.mlp.{fc1|fc2}.{p}",
    "layers.{s}.downsample.{norm|reduction}.{p}": "stages.{s}.merge.{norm|reduction}.{p}",
}
#: Cross-attention from the text into the image blocks.
SWIN_FUSION = {
    "layers.{s}.blocks.{b}.attn.norm_i2t_i.{p}": "stages.{s}.blocks.{b}.cross.norm.{p}",
    "layers.{s}.blocks.{b}.attn.qkv_i2t.{p}": "stages.{s}.blocks.{b}.cross.query.{p}",
    "layers.{s}.blocks.{b}.attn.qkv_text_i2t.{p}": "stages.{s}.blocks.{b}.cross.key_value.{p}",
    "layers.{s}.blocks.{b}.attn.proj_i2t.{p}": "stages.{s}.blocks.{b}.cross.proj.{p}",
    "layers.{s}.blocks.{b}.attn.alpha_i2t": "stages.{s}.blocks.{b}.cross.alpha",
}
#: These names are those of RoBERTa in transformers, too.
ROBERTA = {
    "embeddings.{word|position|token_type}_embeddings.{p}": "embeddings.{word|position|token_type}.{p}",
    "embeddings.LayerNorm.{p}": "embeddings.norm.{p}",
    "encoder.layer.{l}.attention.self.{q}.{p}": "layers.{l}.{q}.{p}",
    "encoder.layer.{l}.attention.output.dense.{p}": "layers.{l}.attn_out.{p}",
    "encoder.layer.{l}.attention.output.LayerNorm.{p}": "layers.{l}.attn_norm.{p}",
    "encoder.layer.{l}.intermediate.dense.{p}": "layers.{l}.fc1.{p}",
    "encoder.layer.{l}.output.dense.{p}": "layers.{l}.fc2.{p}",
    "encoder.layer.{l}.output.LayerNorm.{p}": "layers.{l}.out_norm.{p}",
}
#: Cross-attention from the image into the text layers.
ROBERTA_FUSION = {
    "encoder.layer.{l}.crossattention_t2i.self.{q}.{p}": "layers.{l}.cross.{q}.{p}",
    "encoder.layer.{l}.crossattention_t2i.output.dense.{p}": "layers.{l}.cross.proj.{p}",
    "encoder.layer.{l}.alpha_t2i": "layers.{l}.cross.alpha",
}


#: Why an entry needs no place in weights.
FOLLOWS_FROM_SIZES = "follows from the sizes of the model"


def towers(*, image: str, text: str) -> dict[str, str]:
    """The table of both towers, which stand below the prefixes `image` and `text` of the published names."""
    image_table = below(SWIN | SWIN_FUSION, published=image, ours="encoder.image.")
    text_table = below(ROBERTA | ROBERTA_FUSION, published=text, ours="encoder.text.")
    return image_table | text_table


def position_buffers(config: FiberConfig, *, image: str, text: str) -> dict[str, Tensor]:
    """Positions that published state dicts of both stages hold although the configuration determines them, below the
    prefixes of the two towers."""
    buffers = {f"{text}embeddings.position_ids": torch.arange(config.text.positions)[None]}
    for stage, depth in enumerate(config.image.depths):
        window = config.image.window_of(stage)
        index = relative_position_index(window, window, window)
        for block in range(depth):
            buffers[f"{image}layers.{stage}.blocks.{block}.attn.relative_position_index"] = index
    return buffers


def position_reasons(*, image: str, text: str) -> dict[str, str]:
    """Templates of the names of `position_buffers`, with the reason why they have no place in our weights."""
    return {
        f"{text}embeddings.position_ids": FOLLOWS_FROM_SIZES,
        f"{image}layers.{{s}}.blocks.{{b}}.attn.relative_position_index": FOLLOWS_FROM_SIZES,
    }
