"""What the trials begin with: tiny models that the program has trained for some steps, and small files of its forms."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from image_files import photograph
from PIL import Image
from region_files import coco_box
from small_runs import RECIPE
from tar_files import shard_sample, write_tar
from vqa_files import annotation, write_annotations

from benchmarks.faults.program import TRAINING_SECONDS, Program

#: The detector needs three levels.
DETECTOR_MODEL = ("model.depths=[1, 1, 1]", "model.image_heads=[2, 4, 8]")
DETECTOR = "{name: fine, channels: 32, blocks: 1, drop_block: 0, short_sides: [64], longest_side: 64, negatives: 2}"
BATCH = ("runtime.micro_batch=4", "runtime.global_batch=4")
SCENE_BOXES = "[{kind: scene_detection, count: 8, image_size: 64}]"
#: Task → what is put over the recipe to train it for two steps.
SETTINGS = {
    "coarse": (),
    "retrieval": ("task={name: retrieval, itc: 0, itm: 1, itm_negatives: random}",),
    "vqa": ("task={name: vqa}",),
    "nlvr2": ("task={name: nlvr2}",),
    "caption": ("task={name: caption, beam: 2}",),
    "fine": (f"task={DETECTOR}", *DETECTOR_MODEL, f"data.train={SCENE_BOXES}"),
}
PICTURES = 6

#: Of the recipe `odinw`, were it started.
ODINW_SIZES = ("model.preset=tiny", "model.image_size=64", "model.tokenizer=builtin", *DETECTOR_MODEL)


class Stock:
    """Files below `folder`, each made when it is first asked for; a trial that changes one works on a copy."""

    def __init__(self, folder: Path, program: Program):
        self.folder = folder
        self.program = program
        folder.mkdir(parents=True, exist_ok=True)

    def recipe(self) -> Path:
        """A recipe of the smallest coarse model."""
        return self._made("recipe.yaml", lambda path: path.write_text(RECIPE.lstrip()))

    def run(self, task: str) -> Path:
        """A run folder of two steps with a checkpoint after each."""
        return self._made(f"runs/{task}", lambda path: self._train(task, path))

    def checkpoint(self, task: str) -> Path:
        """The latest checkpoint of `run`."""
        return self.run(task) / "checkpoints" / "step-000002"

    def _train(self, task: str, path: Path) -> None:
        ended = self.program.run(*train_words(task, self.recipe(), path), cwd=self.folder, limit=TRAINING_SECONDS)
        assert ended.code == 0, f"{ended.command}\n{ended.said}"
        weights = {file for file in path.rglob("model.safetensors")}
        assert weights, f"{ended.command} leaves no weights"

    def pictures(self) -> Path:
        """A folder of small pictures."""
        return self._made("pictures", write_pictures)

    def karpathy(self) -> Path:
        """Karpathy's JSON over `pictures`."""
        return self._made("dataset_own.json", self._write_karpathy)

    def _write_karpathy(self, path: Path) -> None:
        splits = ("train", "train", "train", "train", "val", "test")
        images = []
        for number, split in enumerate(splits):
            sentences = [{"raw": f"a picture with number {number}"}, {"raw": "smooth colours"}]
            images.append({"filename": f"{number}.png", "split": split, "imgid": number, "sentences": sentences})
        path.write_text(json.dumps({"images": images}))
        self.pictures()

    def coco(self) -> Path:
        """COCO's JSON of boxes over `pictures`."""
        return self._made("boxes.json", self._write_coco)

    def _write_coco(self, path: Path) -> None:
        self.pictures()
        images = [
            {"id": number, "file_name": f"{number}.png", "width": 120, "height": 80} for number in range(PICTURES)
        ]
        boxes = [{"id": number, "area": 800, **coco_box(number, 3, [10, 10, 40, 20])} for number in range(PICTURES)]
        content = {"images": images, "annotations": boxes, "categories": [{"id": 3, "name": "red star"}]}
        path.write_text(json.dumps(content))

    def shards(self) -> Path:
        """A folder with two shards of image-text pairs."""
        return self._made("shards", write_shards)

    def vqa_annotations(self) -> Path:
        """VQAv2's annotations."""
        return self._made("annotations.json", write_vqa_annotations)

    def statements(self) -> Path:
        """NLVR's JSON lines over `pictures`."""
        return self._made("statements.jsonl", self._write_statements)

    def _write_statements(self, path: Path) -> None:
        self.pictures()
        rows = [{"sentence": "it is red", "identifier": f"{number}-0", "label": "true"} for number in range(PICTURES)]
        path.write_text("\n".join(json.dumps(row) for row in rows))

    def tokenizer(self) -> Path:
        """A tokeniser's folder."""
        return self.checkpoint("coarse") / "tokenizer"

    def published(self) -> Path:
        """A checkpoint of the published code, of the small sizes that the server takes for the base model's."""
        return self._made("published.ckpt", lambda path: self.program.call("stock:write_published", str(path)))

    def foreign_weights(self) -> Path:
        """A checkpoint of something else."""
        return self._made("foreign.ckpt", lambda path: torch.save({"state_dict": {"a": torch.ones(2)}}, path))

    def many_answers(self) -> Path:
        """VQAv2's annotations with so many answers that their vocabulary takes some pages."""
        return self._made("many_annotations.json", write_many_answers)

    def many_captions(self) -> Path:
        """Karpathy's JSON over `pictures` with so many words that their frequencies take some pages."""
        return self._made("dataset_many.json", self._write_many_captions)

    def _write_many_captions(self, path: Path) -> None:
        sentences = [{"raw": " ".join(f"word{number}" for number in range(first, first + 10))} for first in range(900)]
        images = [
            {"filename": f"{number}.png", "split": "train", "imgid": number, "sentences": sentences}
            for number in range(PICTURES)
        ]
        path.write_text(json.dumps({"images": images}))
        self.pictures()

    def _made(self, name: str, make: Callable[[Path], object]) -> Path:
        path = self.folder / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            make(path)
        return path


def train_words(task: str, recipe: Path, output: Path, *overrides: str) -> list[str]:
    """The command line that trains the smallest model of a task for two steps, with settings put over it."""
    verb = ["pretrain", task] if task in ("coarse", "fine") else ["finetune", task]
    settings = ("optim.steps=2", *BATCH, "log.every=1", "log.save_every=1", *SETTINGS[task], *overrides)
    return [*verb, "--recipe", str(recipe), "--output", str(output), *settings]


def write_pictures(folder: Path) -> None:
    folder.mkdir()
    for number in range(PICTURES):
        picture = photograph().transpose(Image.Transpose.FLIP_LEFT_RIGHT) if number % 2 else photograph()
        picture.save(folder / f"{number}.png")


def write_shards(folder: Path) -> None:
    for shard in range(2):
        members = []
        for number in range(8):
            key = f"{shard}{number}"
            members += shard_sample(key, f"a text with number {key}", (30 * number, 90 * shard, 60))
        write_tar(folder / f"{shard}.tar", members)


def write_vqa_annotations(path: Path) -> None:
    answers = {1: ["cat"] * 10, 2: ["dog"] * 10}
    write_annotations(path, [annotation(number, said) for number, said in answers.items()])


def write_many_answers(path: Path) -> None:
    write_annotations(path, [annotation(number, [f"answer number {number}"] * 10) for number in range(2000)])


def write_published(path: str) -> None:
    """Called in the server's process, which from now on takes small sizes for those of the published base model: a file
    of the true ones has a gigabyte."""
    from fiber_cli.checkpoints.published import coarse, file
    from fiber_cli.model.config import FiberConfig, ImageConfig, TextConfig
    from fiber_cli.tasks.coarse.task import CoarseTask

    small = FiberConfig(
        image=ImageConfig(embed_dim=8, depths=(2, 2, 18, 2), heads=(1, 2, 4, 8), window=2),
        text=TextConfig(hidden=24, heads=2, intermediate=32, vocab=30, positions=20),
        hidden=16,
        image_size=(64, 64),
    )
    vars(file)["BASE"] = small
    torch.save({"state_dict": coarse.to_published(CoarseTask(small).state_dict(), small)}, path)


def copy(path: Path, folder: Path, name: str | None = None) -> Path:
    """A copy of a file or folder in another folder, for a trial to harm."""
    target = folder / (name or path.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.copytree(path, target, symlinks=True)
    else:
        shutil.copy(path, target)
    return target


def odinw_archive(stock: Stock, folder: Path) -> Path:
    """The archive with one set."""
    root = folder / "archive"
    for split in ("train", "valid", "test"):
        pictures = root / "Raccoon" / "Raccoon.v2-raw.coco" / split
        shutil.copytree(stock.pictures(), pictures)
        shutil.copy(stock.coco(), pictures / "annotations_without_background.json")
    return root
