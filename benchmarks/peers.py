"""What else one would use, with random weights: CLIP, BLIP and Grounding DINO as transformers has them."""

from collections.abc import Callable

import torch
import transformers

from benchmarks.inference import BEAM, CAPTION, Call
from benchmarks.measured import Scale
from fiber_cli.model.config import PRESETS

#: "cat . dog ." in BERT's vocabulary.
CAT_DOG = (101, 4937, 1012, 3899, 1012, 102)


def clip(scale: Scale, device: torch.device) -> Call:
    """The image side of CLIP ViT-B/16 at our image size."""
    side = PRESETS[scale.preset].image_size[0]
    config = transformers.CLIPVisionConfig(
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        patch_size=16,
        image_size=side,
    )
    with device:
        model = transformers.CLIPVisionModelWithProjection(config).eval()
    pixels = torch.randn(scale.images, 3, side, side, device=device)
    return Call(lambda: model(pixel_values=pixels), scale.images, "images")


def blip(scale: Scale, device: torch.device) -> Call:
    """BLIP base at our image size; it ends its captions at a length, as random weights do not."""
    side = PRESETS[scale.preset].image_size[0]
    config = transformers.BlipConfig(vision_config={"image_size": side})
    with device:
        model = transformers.BlipForConditionalGeneration(config).eval()
    pixels = torch.randn(scale.captions, 3, side, side, device=device)
    lengths = {"min_length": CAPTION, "max_length": CAPTION + 1}
    return Call(lambda: model.generate(pixel_values=pixels, num_beams=BEAM, **lengths), scale.captions, "captions")


def grounding_dino(scale: Scale, device: torch.device) -> Call:
    """Grounding DINO with Swin-T, which is smaller than our towers."""
    with device:
        model = transformers.GroundingDinoForObjectDetection(transformers.GroundingDinoConfig()).eval()
    pixels = torch.randn(1, 3, *scale.image, device=device)
    ids = torch.tensor([CAT_DOG], device=device)
    return Call(lambda: model(pixel_values=pixels, input_ids=ids), 1, "images")


CALLS: dict[str, Callable[[Scale, torch.device], Call]] = {
    "peer: CLIP ViT-B/16, images to features": clip,
    f"peer: BLIP base, captions of {CAPTION} tokens, beam {BEAM}": blip,
    "peer: Grounding DINO (Swin-T), detection of 2 names": grounding_dino,
}
