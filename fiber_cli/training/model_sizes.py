"""The sizes of a recipe's model."""

import dataclasses
from typing import TYPE_CHECKING, Any

from fiber_cli.checkpoints.backbone_sizes import roberta_sizes, swin_sizes
from fiber_cli.config.recipe import ModelSettings
from fiber_cli.errors import UserError
from fiber_cli.model.config import PRESETS, FiberConfig, ImageConfig, TextConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Setting that names a tower's weights → settings of its sizes, with their names in the tower.
TOWER_SIZES = {
    "swin": {"embed_dim": "embed_dim", "depths": "depths", "image_heads": "heads"},
    "roberta": {
        "text_layers": "layers",
        "text_hidden": "hidden",
        "text_heads": "heads",
        "text_intermediate": "intermediate",
    },
}

#: Settings of a model that may be otherwise where weights are taken from another.
_NOT_SHAPING = {"image", "text", "image_size", "init_std", "gate_init", "mlm_norm_eps", "text.norm_eps"}
_NOT_SHAPING |= {"text.vocab", "text.pad_id", "text.dropout", "image.drop_path", "image.position_embedding"}
_NOT_SHAPING |= {"image.window", "image.stage_windows", "image.fixed_window"}


def model_config(
    settings: ModelSettings,
    tokenizer: "PreTrainedTokenizerBase | None",
    *,
    free_image_size: bool = False,
    trained: FiberConfig | None = None,
) -> FiberConfig:
    """The preset, with the towers of the weights that are named, changed where the recipe says so, with the tokeniser's
    vocabulary.

    tokenizer: None leaves the vocabulary to the towers. free_image_size: images are of any size, so that windows keep
    theirs. trained: the model of a run that goes on, whose towers are those that its weights had; they are not read
    again. Raises UserError for sizes that do not fit.
    """
    preset = _with_named_towers(settings, trained)
    image = _sizes_given(settings, "swin") | _given(
        drop_path=settings.drop_path, position_embedding=settings.position_embedding
    )
    text = _sizes_given(settings, "roberta") | _given(dropout=settings.dropout)
    joint = _where_fused(settings) | _given(
        fusion_attention=settings.fusion_attention,
        fusion_gate=settings.fusion_gate,
        hidden=settings.hidden,
        norm_image_query=settings.norm_image_query,
    )
    config = dataclasses.replace(
        preset,
        image=dataclasses.replace(preset.image, fixed_window=free_image_size, **image),
        text=dataclasses.replace(preset.text, **_vocabulary(settings, preset.text, tokenizer), **text),
        **joint,
    )
    if settings.image_size is not None:
        config = config.at_image_size((settings.image_size, settings.image_size))
    if settings.window is not None:
        window = dataclasses.replace(config.image, window=settings.window, stage_windows=None)
        config = dataclasses.replace(config, image=window)
    # Position ids start behind the padding id.
    longest = config.text.positions - config.text.pad_id - 1
    if settings.text_length > longest:
        source = f"the text tower of {settings.roberta}" if settings.roberta else f"preset {settings.preset}"
        raise UserError(f"model.text_length={settings.text_length}: {source} has positions for {longest}")
    return config


def differing_sizes(theirs: FiberConfig, ours: FiberConfig) -> list[str]:
    """What of a checkpoint's model is otherwise in ours such that its weights do not fit, in words. The preset comes
    first where one has all of it."""
    expected, found = _shaping(theirs), _shaping(ours)
    if expected == found:
        return []
    presets = [f"the sizes of model.preset={name}" for name, preset in PRESETS.items() if _shaping(preset) == expected]
    differing = []
    for name, value in expected.items():
        if value != found[name]:
            differing.append(f"{name} {value} and not {found[name]}")
    return presets + differing


def _shaping(model: FiberConfig) -> dict[str, Any]:
    """The settings of a model that shape its weights, by their names in it, but for what first weights are fitted to
    and what the tokeniser gives."""
    values = vars(model) | {f"image.{name}": value for name, value in vars(model.image).items()}
    values |= {f"text.{name}": value for name, value in vars(model.text).items()}
    return {name: value for name, value in values.items() if name not in _NOT_SHAPING}


def _with_named_towers(settings: ModelSettings, trained: FiberConfig | None) -> FiberConfig:
    """The preset with the towers of `model.swin` and `model.roberta`."""
    preset = PRESETS[settings.preset]
    towers = preset if trained is None else trained
    image, text, image_size = preset.image, preset.text, preset.image_size
    if settings.swin:
        image, image_size = towers.image, towers.image_size
        if trained is None:
            image = swin_sizes(settings.swin, preset.image)
            # At which the last map is one window, as all public ones are trained: 224 for windows of 7, 384 for 12.
            side = image.strides[-1] * image.window
            image_size = (side, side)
        _check_given(settings.swin, "swin", image, settings)
    if settings.roberta:
        text = towers.text
        if trained is None:
            text = roberta_sizes(settings.roberta, preset.text)
        _check_given(settings.roberta, "roberta", text, settings)
    fused = _fused(settings, preset, image, text)
    return dataclasses.replace(preset, image=image, text=text, image_size=image_size, fusion_layers=fused)


def _sizes_given(settings: ModelSettings, setting: str) -> dict[str, Any]:
    """Sizes of a tower that the recipe names, by their names in the tower."""
    return _given(**{size: vars(settings)[name] for name, size in TOWER_SIZES[setting].items()})


def _where_fused(settings: ModelSettings) -> dict[str, Any]:
    """Place and number of the fused layers, as far as the recipe names them."""
    if settings.fusion == "none":
        return {"fusion_layers": 0}
    return _given(fusion=settings.fusion, fusion_layers=settings.fusion_layers)


def _given(**sizes: Any) -> dict[str, Any]:
    """Those that the recipe names."""
    return {name: size for name, size in sizes.items() if size is not None}


def _check_given(source: str, setting: str, tower: ImageConfig | TextConfig, settings: ModelSettings) -> None:
    """UserError for sizes that a recipe gives a tower otherwise than its named weights have them."""
    for name, size in TOWER_SIZES[setting].items():
        given, theirs = vars(settings)[name], vars(tower)[size]
        if given is not None and given != theirs:
            raise UserError(
                f"model.{name}={given}: the weights {source} of model.{setting} have {theirs}; leave model.{name} out, "
                f"or set model.{setting}=null to start from random weights"
            )


def _fused(settings: ModelSettings, preset: FiberConfig, image: ImageConfig, text: TextConfig) -> int:
    """How many layers are fused where the recipe does not say: as many as in the preset, where in the backbone each
    named tower keeps half of its own unfused."""
    layers = preset.fusion_layers
    if settings.fusion == "top":
        return layers
    if settings.swin:
        layers = min(layers, sum(image.depths) // 2)
    if settings.roberta:
        layers = min(layers, text.layers // 2)
    return layers


def _vocabulary(
    settings: ModelSettings, text: TextConfig, tokenizer: "PreTrainedTokenizerBase | None"
) -> dict[str, int]:
    """Words and the padding id: the tokeniser's, of named weights as many as those have."""
    if tokenizer is None:
        return {}
    words, pad_id = len(tokenizer), tokenizer.pad_token_id
    if not settings.roberta:
        return {"vocab": words, "pad_id": pad_id}
    if words > text.vocab or pad_id != text.pad_id:
        raise UserError(
            f"model.tokenizer={settings.tokenizer}: has {words:,} tokens and pads with {pad_id}, the weights "
            f"{settings.roberta} have {text.vocab:,} and pad with {text.pad_id}; give the weights' own"
        )
    return {"vocab": text.vocab, "pad_id": pad_id}
