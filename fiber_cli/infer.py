"""`Fiber`: pictures and texts in, plain Python results out."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from fiber_cli import dist
from fiber_cli.data.images import normalize, open_image, to_rgb
from fiber_cli.data.source import BadSample
from fiber_cli.data.text import encode
from fiber_cli.data.transforms import EvalTransform
from fiber_cli.errors import UserError
from fiber_cli.loading import Loaded, load
from fiber_cli.model.fusion import ImageStem, TextStem

#: A path, a picture, or uint8 RGB (H, W, 3).
Picture = str | Path | Image.Image | np.ndarray
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
#: What a method needs of a task → how to get a checkpoint with it.
NEEDS = {
    "temperature": "dual-encoder features; use a checkpoint of `fiber pretrain coarse` or `fiber finetune retrieval`",
    "itm": "an ITM head; use a checkpoint of `fiber pretrain coarse`, or of `fiber finetune retrieval` with task.itm > 0",
    "vqa": "an answer classifier; use a checkpoint of `fiber finetune vqa`",
    "captioner": "a captioner; use a checkpoint of `fiber finetune caption`",
}


class Fiber:
    """A checkpoint in use. Every method takes one input or a list of them and answers in kind.

    Pictures are paths, PIL images or uint8 RGB arrays (H, W, 3). Raises UserError for pictures that cannot be read and
    for what the checkpoint was not trained for.
    """

    def __init__(self, loaded: Loaded, device: torch.device | None = None, batch_size: int = 32):
        self.loaded, self.batch_size = loaded, batch_size
        self.device = device or dist.device()
        self.task = loaded.task.to(self.device)
        self.transform = EvalTransform(loaded.image_size)

    @classmethod
    def from_pretrained(
        cls, path: str | Path, device: str | torch.device | None = None, *, batch_size: int = 32
    ) -> Fiber:
        """Of a checkpoint directory, a checkpoints folder or a run folder."""
        return cls(load(path), None if device is None else torch.device(device), batch_size)

    def embed_images(self, images: Picture | Sequence[Picture]) -> np.ndarray:
        """Dual-encoder features, float32 (D,) or (N, D), L2 norm 1."""
        self._need("temperature")
        pictures, single = _listed(images)
        rows = [self.task.image_features(self._stems(part)) for part in self._parts(pictures)]
        return _rows(rows, single)

    def embed_texts(self, texts: str | Sequence[str]) -> np.ndarray:
        """Dual-encoder features, float32 (D,) or (N, D), L2 norm 1."""
        self._need("temperature")
        sentences, single = _listed(texts)
        rows = [self.task.text_features(self._text_stems(part)) for part in self._parts(sentences)]
        return _rows(rows, single)

    def match(self, images: Picture | Sequence[Picture], texts: str | Sequence[str]) -> float | np.ndarray:
        """The "matched" logit of the ITM head for each pair (image n, text n); one of the two may stand for all."""
        scores, single = self._pairs("itm", lambda *stems: self.task.match(*stems)[:, 1], images, texts)
        return float(scores) if single else scores

    def answer(self, images: Picture | Sequence[Picture], questions: str | Sequence[str]) -> str | list[str]:
        """The most probable answer of the vocabulary for each (image, question); one of the two may stand for all."""
        best, single = self._pairs("vqa", lambda *stems: self.task.logits(*stems).argmax(1), images, questions)
        return self.loaded.labels[best] if single else [self.loaded.labels[label] for label in best]

    def caption(self, images: Picture | Sequence[Picture], beam: int = 5) -> str | list[str]:
        """A caption for each image by beam search."""
        self._need("captioner")
        pictures, single = _listed(images)
        self.task.beam = beam
        captions = []
        for part in self._parts(pictures):
            rows = self.task.predict({"pixels": self._pixels(part)})
            captions += self.loaded.tokenizer.batch_decode(rows, skip_special_tokens=True)
        captions = [text.strip() for text in captions]
        return captions[0] if single else captions

    def _need(self, part: str) -> None:
        if getattr(self.task, part, None) is None:
            raise UserError(f"{self.loaded.path} is a checkpoint of {self.loaded.name}, without {NEEDS[part]}")

    def _pairs(self, part: str, run: Any, images: Any, texts: Any) -> tuple[Any, bool]:
        """`run` over stems of pairs; an image that stands in several pairs of a batch has its stem computed once."""
        self._need(part)
        (pictures, one_image), (sentences, one_text) = _listed(images), _listed(texts)
        count = max(len(pictures), len(sentences))
        if {len(pictures), len(sentences)} - {1, count}:
            raise UserError(
                f"{len(pictures)} images and {len(sentences)} texts: give as many of both, or one of either"
            )
        pairs = list(zip(pictures * (count // len(pictures)), sentences * (count // len(sentences))))
        rows = []
        for chosen in self._parts(pairs):
            unique = list({id(picture): picture for picture, _ in chosen}.values())
            place = {id(picture): row for row, picture in enumerate(unique)}
            stems = ImageStem(self._stems(unique).map[[place[id(picture)] for picture, _ in chosen]])
            rows.append(run(stems, self._text_stems([text for _, text in chosen])))
        return _rows(rows, single := one_image and one_text), single

    def _stems(self, pictures: list[Picture]) -> ImageStem:
        return self.task.encoder.image_stem(normalize(self._pixels(pictures)))

    def _pixels(self, pictures: list[Picture]) -> Tensor:
        return torch.stack([self.transform(read_picture(picture)) for picture in pictures]).to(self.device)

    def _text_stems(self, texts: list[str]) -> TextStem:
        ids, mask, truncated = encode(self.loaded.tokenizer, texts, self.loaded.text_length)
        if truncated:
            raise UserError(
                f"{truncated} of the texts are longer than the model's {self.loaded.text_length} tokens, such as "
                f"{max(texts, key=len)[:80]!r}; shorten them"
            )
        return self.task.encoder.text_stem(ids.to(self.device), mask.to(self.device))

    def _parts(self, items: list) -> Iterator[list]:
        with torch.inference_mode():
            for first in range(0, len(items), self.batch_size):
                yield items[first : first + self.batch_size]


def read_picture(picture: Picture) -> Image.Image:
    """A picture in RGB. Raises UserError where it cannot be read."""
    try:
        if isinstance(picture, Image.Image):
            return to_rgb(picture)
        if isinstance(picture, np.ndarray):
            if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
                raise BadSample(f"an array of {picture.dtype} {picture.shape}; wanted is uint8 RGB (height, width, 3)")
            return Image.fromarray(picture)
        return open_image(Path(picture))
    except BadSample as error:
        name = picture if isinstance(picture, str | Path) else type(picture).__name__
        raise UserError(f"{name}: {error}") from None


def find_images(paths: Iterable[Path]) -> list[Path]:
    """The files given, and all image files below the folders given, in order. Raises UserError for a path that is not
    there and for a folder without images."""
    found = []
    for path in paths:
        if path.is_dir():
            below = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
            if not below:
                raise UserError(f"{path}: no image files below this folder ({', '.join(sorted(SUFFIXES))})")
            found += below
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"{path}: no such file or folder")
    return found


def describe_images(
    paths: Iterable[Path], describe: Callable[[list[Image.Image]], list[str]], what: str, *, batch: int, as_json: bool
) -> None:
    """Print what `describe` says of each image: `path<TAB>text` lines, or a JSON list of {"image", `what`}.

    Images that cannot be read are named on standard error and the rest is done; UserError where none can be read.
    """
    files = find_images(paths)
    shown = len(files) > batch and sys.stderr.isatty()
    done = []
    for first in tqdm(range(0, len(files), batch), unit="batch", disable=not shown, dynamic_ncols=True):
        pictures = {}
        for file in files[first : first + batch]:
            try:
                pictures[file] = read_picture(file)
            except UserError as error:
                print(f"left out: {error}", file=sys.stderr)
        for file, text in zip(pictures, describe(list(pictures.values())) if pictures else ()):
            done.append({"image": str(file), what: text})
            if not as_json:
                print(f"{file}\t{text}", flush=True)
    if not done:
        raise UserError(f"none of {len(files)} images could be read")
    if as_json:
        print(json.dumps(done, indent=2, ensure_ascii=False))


def _listed(value: Any) -> tuple[list, bool]:
    """The inputs as a list, and whether there was one that stood alone."""
    single = isinstance(value, str | Path | Image.Image) or (isinstance(value, np.ndarray) and value.ndim == 3)
    items = [value] if single else list(value)
    if not items:
        raise UserError("no input: give at least one image and text")
    return items, single


def _rows(rows: list[Tensor], single: bool) -> np.ndarray:
    out = torch.cat(rows).cpu().numpy()
    return out[0] if single else out
