"""Sizes of the two towers as public weights have them: a Swin by its tensors, a RoBERTa by its config.json."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from fiber_cli.checkpoints.backbones import fetched_file, local_roberta, swin_shapes
from fiber_cli.checkpoints.positions import POSITION_BIAS, window_of
from fiber_cli.data.files import read_json
from fiber_cli.errors import UserError
from fiber_cli.model.config import BASE, LARGE, SMALL, ImageConfig, TextConfig

#: Text models whose sizes are known, so that nothing need be fetched for them.
KNOWN_TEXTS = {
    "roberta-base": BASE.text,
    "FacebookAI/roberta-base": BASE.text,
    "roberta-large": LARGE.text,
    "FacebookAI/roberta-large": LARGE.text,
    "distilroberta-base": SMALL.text,
    "distilbert/distilroberta-base": SMALL.text,
}
#: `model_type` of transformers' configurations that compute as RoBERTa does.
ROBERTA_TYPES = ("roberta", "xlm-roberta", "camembert")
CONFIG = "config.json"

#: Setting of TextConfig → its name in config.json.
_TEXT_NAMES = {
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
    "intermediate": "intermediate_size",
    "vocab": "vocab_size",
    "positions": "max_position_embeddings",
    "pad_id": "pad_token_id",
    "norm_eps": "layer_norm_eps",
}
#: Settings that must be as RoBERTa's where they are given.
_AS_ROBERTA = {"hidden_act": "gelu", "position_embedding_type": "absolute", "type_vocab_size": 1}


def swin_sizes(source: str, preset: ImageConfig) -> ImageConfig:
    """The image tower of `model.swin`, with the preset's rates of dropping.

    Raises UserError where nothing can be read, and for weights that are no Swin's of the first version.
    """
    table = re.compile(rf"layers\.(\d+)\.blocks\.(\d+)\.attn\.{POSITION_BIAS}$")
    shapes = swin_shapes(source)
    depths: dict[int, int] = {}
    tables: dict[int, Tensor] = {}
    for name, tensor in shapes.items():
        found = table.match(name)
        if found is not None:
            stage, block = int(found[1]), int(found[2])
            depths[stage] = max(depths.get(stage, 0), block + 1)
            tables[stage] = tensor
    patch, width = shapes.get("patch_embed.proj.weight"), shapes.get("layers.0.blocks.0.mlp.fc1.weight")
    stages = range(len(depths))
    if patch is None or width is None or not depths or set(depths) != set(stages):
        raise UserError(
            f"model.swin={source}: no weights of a Swin of the first version in timm's or Microsoft's form: its patch "
            f"embedding or its tables {POSITION_BIAS} are missing"
        )
    windows = tuple(window_of(tables[stage]) for stage in stages)
    return ImageConfig(
        embed_dim=patch.shape[0],
        depths=tuple(depths[stage] for stage in stages),
        heads=tuple(tables[stage].shape[1] for stage in stages),
        window=windows[-1],
        patch=patch.shape[-1],
        mlp_ratio=width.shape[0] / patch.shape[0],
        drop_path=preset.drop_path,
        stage_windows=None if len(set(windows)) == 1 else windows,
    )


def roberta_sizes(source: str, preset: TextConfig) -> TextConfig:
    """The text tower of `model.roberta`, with the preset's dropout.

    Raises UserError where nothing can be read, and for weights of another architecture.
    """
    path = Path(source)
    if not path.exists() and source in KNOWN_TEXTS:
        return dataclasses.replace(KNOWN_TEXTS[source], dropout=preset.dropout)
    if not path.exists():
        return _described(fetched_file(source, CONFIG), source, preset)
    if (path / CONFIG).is_file():
        return _described(path / CONFIG, source, preset)
    return _measured(local_roberta(source), source, preset)


def _described(file: Path, source: str, preset: TextConfig) -> TextConfig:
    """Sizes from transformers' config.json."""
    content = read_json(file, "a text model's configuration")
    described: dict[str, Any] = content if isinstance(content, dict) else {}
    kind = described.get("model_type")
    if kind not in ROBERTA_TYPES:
        raise UserError(
            f"model.roberta={source}: {file} describes a model of type {kind!r:.40}; the text tower is of RoBERTa's "
            f"form: {', '.join(ROBERTA_TYPES)}"
        )
    for name, wanted in _AS_ROBERTA.items():
        if described.get(name, wanted) != wanted:
            raise UserError(
                f"model.roberta={source}: {file} has {name} {described[name]!r:.40}; the text tower has {wanted!r}, as "
                "RoBERTa"
            )
    sizes = {}
    for ours, theirs in _TEXT_NAMES.items():
        if theirs not in described:
            raise UserError(f"model.roberta={source}: {file} does not say {theirs}")
        sizes[ours] = described[theirs]
    try:
        return TextConfig(**sizes, dropout=preset.dropout).checked()
    except UserError as error:
        raise UserError(f"model.roberta={source}: {file}: {error}") from error


def _measured(weights: Mapping[str, Tensor], source: str, preset: TextConfig) -> TextConfig:
    """Sizes from tensors without a configuration, which do not tell the attention heads: the preset's of the same
    width."""
    shapes = {name.removeprefix("roberta."): tensor.shape for name, tensor in weights.items()}
    words = shapes.get("embeddings.word_embeddings.weight")
    positions = shapes.get("embeddings.position_embeddings.weight")
    inner = shapes.get("encoder.layer.0.intermediate.dense.weight")
    if words is None or positions is None or inner is None:
        raise UserError(
            f"model.roberta={source}: no RoBERTa in transformers' form: its embeddings or its layers are missing"
        )
    if words[1] != preset.hidden:
        raise UserError(
            f"model.roberta={source}: weights of width {words[1]} without a {CONFIG} do not tell their attention "
            f"heads; put the {CONFIG} beside them, or choose a preset of that width (this one has {preset.hidden})"
        )
    layers = 0
    while f"encoder.layer.{layers}.intermediate.dense.weight" in shapes:
        layers += 1
    return TextConfig(
        layers=layers,
        hidden=words[1],
        heads=preset.heads,
        intermediate=inner[0],
        vocab=words[0],
        positions=positions[0],
        dropout=preset.dropout,
        norm_eps=preset.norm_eps,
    )
