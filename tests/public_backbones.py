"""timm's Swin and transformers' RoBERTa, in the sizes of a small fused encoder."""

import timm
from torch import nn
from transformers import RobertaConfig

from fiber_cli.model.config import ImageConfig, TextConfig


def public_swin(image: ImageConfig, *, classes: int) -> nn.Module:
    """Of random weights, for images of 64 x 64, in evaluation."""
    return timm.create_model(
        "swin_tiny_patch4_window7_224",
        img_size=64,
        window_size=image.window,
        embed_dim=image.embed_dim,
        depths=image.depths,
        num_heads=image.heads,
        num_classes=classes,
        drop_path_rate=0.0,
    ).eval()


def public_roberta_config(text: TextConfig) -> RobertaConfig:
    return RobertaConfig(
        vocab_size=text.vocab,
        hidden_size=text.hidden,
        num_hidden_layers=text.layers,
        pad_token_id=1,
        num_attention_heads=text.heads,
        intermediate_size=text.intermediate,
        type_vocab_size=1,
        max_position_embeddings=text.positions,
        layer_norm_eps=text.norm_eps,
    )
