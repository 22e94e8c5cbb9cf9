"""A captioner of random weights that takes milliseconds, and what its captions are held against."""

import torch

from fiber_cli.model.captioner import Captioner, SpecialIds
from fiber_cli.model.config import FiberConfig, ImageConfig, TextConfig
from fiber_cli.tasks.caption.task import CaptionTask

CLS, PAD, SEP, MASK = range(4)
SPECIAL = SpecialIds(cls=CLS, sep=SEP, pad=PAD, mask=MASK)
IDS = {"cls_id": CLS, "sep_id": SEP, "pad_id": PAD, "mask_id": MASK}


def small_config(vocab: int, dropout: float = 0.0) -> FiberConfig:
    return FiberConfig(
        image=ImageConfig(embed_dim=8, depths=(1, 2), heads=(1, 2), window=2, patch=8, drop_path=dropout),
        text=TextConfig(layers=4, hidden=16, heads=2, intermediate=32, vocab=vocab, positions=64, dropout=dropout),
        fusion_layers=3,
        hidden=16,
        image_size=(32, 32),
        init_std=None,
    )


def make_task(vocab: int = 30, seed: int = 0, dropout: float = 0.0, **settings) -> CaptionTask:
    """A task far from its start: gates open, distributions neither flat nor certain."""
    torch.manual_seed(seed)
    task = CaptionTask(small_config(vocab, dropout), **IDS, **{"max_length": 12, "beam": 3} | settings)
    with torch.no_grad():
        for parameter in task.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return task.eval()


def make_captioner(vocab: int = 30, seed: int = 0, *, sep: float = 0.0, pad: float = 0.0) -> Captioner:
    """The captioner of `make_task`; sep, pad: added to the logits of the ending tokens."""
    captioner = make_task(vocab, seed).captioner
    with torch.no_grad():
        captioner.mlm.bias[SEP] += sep
        captioner.mlm.bias[PAD] += pad
    return captioner


def random_pixels(images: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (images, 3, 32, 32), dtype=torch.uint8, generator=generator)


@torch.no_grad()
def memory_of(captioner: Captioner, images: int) -> torch.Tensor:
    return captioner.memory(random_pixels(images).float() / 128 - 1)


@torch.no_grad()
def log_probs(captioner: Captioner, memory: torch.Tensor, tokens: list[int]) -> torch.Tensor:
    """Of the token after [cls, *tokens], from one image memory (N, C), by a pass over the whole text."""
    states = captioner.states(memory[None], torch.tensor([[CLS, *tokens]]))
    logits = captioner.mlm(states[0, -1])
    logits[MASK] = -torch.inf
    return logits.log_softmax(0)


def mean_log_prob(captioner: Captioner, memory: torch.Tensor, tokens: list[int]) -> float:
    steps = [float(log_probs(captioner, memory, tokens[:i])[token]) for i, token in enumerate(tokens)]
    return sum(steps) / len(steps)


def unpadded(row: torch.Tensor) -> list[int]:
    """Tokens up to the ending one, included."""
    tokens = row.tolist()
    end = next((i for i, token in enumerate(tokens) if token in (SEP, PAD)), len(tokens) - 1)
    assert all(token == PAD for token in tokens[end + 1 :])
    return tokens[: end + 1]
