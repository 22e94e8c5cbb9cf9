"""The sizes of a recipe's model."""

import dataclasses
from typing import TYPE_CHECKING, Any

from fiber_cli.config.recipe import ModelSettings
from fiber_cli.errors import UserError
from fiber_cli.model.config import PRESETS, FiberConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def model_config(
    settings: ModelSettings, tokenizer: "PreTrainedTokenizerBase", *, free_image_size: bool = False
) -> FiberConfig:
    """The preset, changed where the recipe says so, with the tokeniser's vocabulary.

    free_image_size: images are of any size, so that windows keep theirs. Raises UserError for sizes that do not fit.
    """
    preset = PRESETS[settings.preset]
    image = _given(
        embed_dim=settings.embed_dim,
        depths=settings.depths,
        heads=settings.image_heads,
        drop_path=settings.drop_path,
        position_embedding=settings.position_embedding,
    )
    text = _given(
        layers=settings.text_layers,
        hidden=settings.text_hidden,
        heads=settings.text_heads,
        intermediate=settings.text_intermediate,
        dropout=settings.dropout,
    )
    joint = _given(
        fusion_layers=settings.fusion_layers,
        fusion=settings.fusion,
        fusion_attention=settings.fusion_attention,
        fusion_gate=settings.fusion_gate,
        hidden=settings.hidden,
        norm_image_query=settings.norm_image_query,
    )
    vocabulary = {"vocab": len(tokenizer), "pad_id": tokenizer.pad_token_id}
    config = dataclasses.replace(
        preset,
        image=dataclasses.replace(preset.image, fixed_window=free_image_size, **image),
        text=dataclasses.replace(preset.text, **vocabulary, **text),
        **joint,
    )
    if settings.image_size is not None:
        config = config.at_image_size((settings.image_size, settings.image_size))
    # Position ids start behind the padding id.
    longest = config.text.positions - config.text.pad_id - 1
    if settings.text_length > longest:
        raise UserError(
            f"model.text_length={settings.text_length}: preset {settings.preset} has positions for {longest}"
        )
    return config


def _given(**sizes: Any) -> dict[str, Any]:
    """Those that the recipe names."""
    return {name: size for name, size in sizes.items() if size is not None}
