"""Published state dicts of a small model, of every kind."""

import torch

from fiber_cli.checkpoints.loading import new_task
from fiber_cli.checkpoints.published.stage import STAGES
from fiber_cli.data.text import load_tokenizer
from fiber_cli.model.config import FiberConfig, ImageConfig, TextConfig
from fiber_cli.tasks import published_forms
from fiber_cli.tasks.context import TaskContext

ANSWERS = ("yes", "no", "2")
#: As deep as the base model, and narrow.
SMALL = FiberConfig(
    image=ImageConfig(embed_dim=8, depths=(2, 2, 18, 2), heads=(1, 2, 4, 8), window=2),
    text=TextConfig(hidden=24, heads=2, intermediate=32, vocab=30, positions=20),
    hidden=16,
    image_size=(64, 64),
)


def published_names(kind: str, config: FiberConfig = SMALL) -> tuple[dict, dict]:
    """Our parameters of a kind of published checkpoint, and its published entries, at their first values."""
    declaration, form = published_forms()[kind]
    settings = declaration.settings(name=declaration.name, **form.settings)
    labels = ANSWERS if form.labels else None
    task = new_task(TaskContext(settings, config, load_tokenizer("builtin"), form.text_length, labels))
    ours = dict(task.named_parameters())
    return ours, STAGES[form.stage].to_published(ours, config)


def published_state(kind: str, seed: int = 0) -> dict:
    """A file's state dict of a kind: every entry of its own values, those that no pass reads too."""
    torch.manual_seed(seed)
    _, state = published_names(kind)
    values = {}
    for key, value in state.items():
        values[key] = torch.randn(value.shape) if value.is_floating_point() else value
    return values
