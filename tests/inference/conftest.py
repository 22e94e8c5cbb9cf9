"""Pictures as a user has them, and small random models."""

import dataclasses
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from small_detector import LABELS, LENGTH, LONGEST, MOST, SHORT

from fiber_cli.checkpoints import saving
from fiber_cli.checkpoints.config import CheckpointConfig
from fiber_cli.checkpoints.loading import Loaded, load, new_task
from fiber_cli.checkpoints.weights import named_weights
from fiber_cli.data.scenes.drawing import draw
from fiber_cli.data.scenes.layout import scene
from fiber_cli.data.sources.scenes import ScenesSource
from fiber_cli.data.text import load_tokenizer
from fiber_cli.inference.fiber import Fiber
from fiber_cli.model.config import TINY, FiberConfig, ImageConfig, TextConfig
from fiber_cli.tasks.coarse.settings import CoarseSettings
from fiber_cli.tasks.context import TaskContext
from fiber_cli.tasks.regions.settings import FineSettings

SEARCH_MODEL = FiberConfig(
    image=ImageConfig(embed_dim=16, depths=(1, 2), heads=(1, 2), window=2, patch=8, drop_path=0.0),
    text=TextConfig(layers=2, hidden=32, heads=4, intermediate=64, vocab=2000, positions=60, dropout=0.0),
    fusion_layers=2,
    hidden=24,
    image_size=(64, 64),
)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    """A folder with three pictures of different sizes, one of them in a folder below under the name of another, a
    broken one, and a text file."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "more").mkdir()
    sizes = {"a.png": (64, 64), "b.jpg": (150, 40), "more/a.png": (50, 130)}
    for number, (name, size) in enumerate(sizes.items()):
        draw(scene(0, "val", number, 64)).resize(size).save(folder / name)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 not a picture")
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture(scope="session")
def readable(pictures) -> list[Path]:
    """The three pictures that can be read."""
    return [pictures / "a.png", pictures / "b.jpg", pictures / "more" / "a.png"]


@pytest.fixture(scope="session")
def detector_run(tmp_path_factory) -> Path:
    """A run folder with a random model that finds much, its gates open."""
    torch.manual_seed(3)
    image = dataclasses.replace(TINY.image, embed_dim=32, fixed_window=True)
    settings = FineSettings(
        name="detection",
        channels=32,
        blocks=1,
        score_threshold=0.0,
        max_detections=MOST,
        short_sides=(SHORT,),
        longest_side=LONGEST,
    )
    config = CheckpointConfig(
        model=dataclasses.replace(TINY, image=image, image_size=(64, 64)),
        task=settings,
        text_length=LENGTH,
        labels=tuple(LABELS),
        tokenizer="builtin",
    )
    tokenizer = load_tokenizer("builtin")
    task = new_task(TaskContext(config.task, config.model, tokenizer, config.text_length, config.labels))
    with torch.no_grad():
        for name, value in task.named_parameters():
            if not name.startswith("detector.") or name.endswith(("text_proj.weight", "bias_lang")):
                value.add_(0.1 * torch.randn_like(value))
        task.detector.head.bias0.fill_(-1.0)
    folder = tmp_path_factory.mktemp("run")
    saving.save(folder, 1, config=config.to_json(), weights=named_weights(task), tokenizer=tokenizer)
    return folder


@pytest.fixture(scope="session")
def detector(detector_run) -> Fiber:
    return Fiber.from_pretrained(detector_run)


@pytest.fixture(scope="session")
def retriever(tmp_path_factory) -> Callable[..., Loaded]:
    """Makes a checkpoint of a random model for search, from a seed and settings of `CoarseTask`; its gates are open."""

    @cache
    def make(seed: int = 0, **settings) -> Loaded:
        torch.manual_seed(seed)
        config = CheckpointConfig(SEARCH_MODEL, CoarseSettings("coarse", **settings), 30, None, "builtin")
        tokenizer = load_tokenizer("builtin")
        task = new_task(TaskContext(config.task, config.model, tokenizer, config.text_length))
        for name, parameter in task.named_parameters():
            if name.endswith(".alpha"):
                torch.nn.init.constant_(parameter, 0.7)
            elif parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.2)
        folder = tmp_path_factory.mktemp("retriever")
        path = saving.save(folder, 1, config=config.to_json(), weights=named_weights(task), tokenizer=tokenizer)
        return load(path)

    return make


@pytest.fixture
def folder(tmp_path) -> Path:
    """Seven pictures, one of them in a folder below."""
    folder = tmp_path / "pictures"
    (folder / "below").mkdir(parents=True)
    source = ScenesSource("val", 7, image_size=64)
    for i in range(7):
        source.image(i).save(folder / ("below/6.png" if i == 6 else f"{i}.png"))
    return folder
