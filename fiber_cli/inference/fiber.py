"""`Fiber`: pictures and texts in, plain Python results out."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from fiber_cli.distributed import collectives as dist
from fiber_cli.tasks.regions import prompts
from fiber_cli.data.images import normalize, open_image, to_rgb
from fiber_cli.tasks.regions.transforms import RegionTransform
from fiber_cli.tasks.regions.evaluation import NO_BOXES, Asked, label_prompts
from fiber_cli.data.source import BadSample, usable
from fiber_cli.data.text import encode
from fiber_cli.data.transforms import EvalTransform
from fiber_cli.errors import UserError, optional
from fiber_cli.checkpoints.loading import Loaded, load
from fiber_cli.tasks.regions.metrics import ranked
from fiber_cli.model.fusion import ImageStem, TextStem
from fiber_cli.tasks.prediction import to_device

if TYPE_CHECKING:
    import supervision

#: A path, a picture, or uint8 RGB (H, W, 3).
Picture = str | Path | Image.Image | np.ndarray
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
#: What a method needs of a task → how to get a checkpoint with it.
NEEDS = {
    "temperature": "dual-encoder features; use a checkpoint of `fiber pretrain coarse` or `fiber finetune retrieval`",
    "itm": "an ITM head; use a checkpoint of `fiber pretrain coarse`, or of `fiber finetune retrieval` with task.itm > 0",
    "vqa": "an answer classifier; use a checkpoint of `fiber finetune vqa`",
    "captioner": "a captioner; use a checkpoint of `fiber finetune caption`",
    "detector": "a detector; use a checkpoint of `fiber pretrain fine`, or of `fiber finetune detection`, `grounding` "
    "or `refexp`",
}


class Detection(NamedTuple):
    """label: the user's own text, and index: its number among those asked for. box: x1, y1, x2, y2, the edges in
    pixels of the upright picture: x2 - x1 is the width, and the whole picture is 0, 0, width, height."""

    label: str
    index: int
    score: float
    box: tuple[float, float, float, float]


class Query(NamedTuple):
    """What pictures are searched for: labels or phrases in the user's words, and the prompts that name them all, one
    after another."""

    names: list[str]
    prompts: list[prompts.Encoded]


class Fiber:
    """A checkpoint in use. Every method takes one input or a list of them and answers in kind.

    Pictures are paths, PIL images or uint8 RGB arrays (H, W, 3). Files are turned upright by their EXIF orientation,
    PIL images are taken as they are. Raises UserError for pictures that cannot be read and for what the checkpoint was
    not trained for. batch_size: inputs in one pass; 32 where it is not given, 4 for detection.
    """

    def __init__(self, loaded: Loaded, device: torch.device | None = None, batch_size: int | None = None):
        self.loaded = loaded
        self.batch_size = batch_size or (4 if hasattr(loaded.task, "detector") else 32)
        self.device = device or dist.device()
        self.task = loaded.task.to(self.device)
        self.transform = EvalTransform(loaded.image_size)

    @classmethod
    def from_pretrained(
        cls, path: str | Path, device: str | torch.device | None = None, *, batch_size: int | None = None
    ) -> Self:
        """Of a checkpoint directory, a checkpoints folder or a run folder."""
        return cls(load(path), None if device is None else torch.device(device), batch_size)

    def embed_images(self, images: Picture | Sequence[Picture]) -> np.ndarray:
        """Dual-encoder features, float32 (D,) or (N, D), L2 norm 1."""
        return self._embed(images, lambda part: self.task.image_features(self._stems(part)))

    def embed_texts(self, texts: str | Sequence[str]) -> np.ndarray:
        """Dual-encoder features, float32 (D,) or (N, D), L2 norm 1."""
        return self._embed(texts, lambda part: self.task.text_features(self._text_stems(part)))

    def match(self, images: Picture | Sequence[Picture], texts: str | Sequence[str]) -> float | np.ndarray:
        """The "matched" logit of the ITM head for each pair (image n, text n); one of the two may stand for all."""
        scores, single = self._pairs("itm", lambda *stems: self.task.match(*stems)[:, 1], images, texts)
        return float(scores) if single else scores

    def answer(self, images: Picture | Sequence[Picture], questions: str | Sequence[str]) -> str | list[str]:
        """The most probable answer of the vocabulary for each (image, question); one of the two may stand for all."""
        best, single = self._pairs("vqa", lambda *stems: self.task.logits(*stems).argmax(1), images, questions)
        return self.loaded.labels[best] if single else [self.loaded.labels[label] for label in best]

    def caption(self, images: Picture | Sequence[Picture], beam: int = 5, published: bool = False) -> str | list[str]:
        """A caption for each image by beam search, `published`: as the published code does it."""
        self._need("captioner")
        pictures, single = _listed(images)
        self.task.beam, self.task.published_search = beam, published
        captions = []
        for part in self._parts(pictures):
            rows = self.task.predict({"pixels": self._pixels(part)})
            captions += self.loaded.tokenizer.batch_decode(rows, skip_special_tokens=True)
        captions = [text.strip() for text in captions]
        return captions[0] if single else captions

    def detect(
        self, images: Picture | Sequence[Picture], labels: str | Sequence[str], *, threshold: float = 0.3,
        nms_iou: float | None = None, top_k: int | None = None, chunk: int | str = "auto",
    ) -> list[Detection] | list[list[Detection]]:  # fmt: skip
        """What is where in each image, best first. labels: names, or one text such as "cat . traffic light". More than
        the text window holds are asked in several prompts of at most `chunk` names. The rest: see `find`."""
        return self.find(images, self.label_query(labels, chunk), threshold=threshold, nms_iou=nms_iou, top_k=top_k)

    def ground(
        self, images: Picture | Sequence[Picture], sentence: str, phrases: str | Sequence[str] | None = None, *,
        threshold: float = 0.3, nms_iou: float | None = None, top_k: int | None = None,
    ) -> list[Detection] | list[list[Detection]]:  # fmt: skip
        """Where each phrase of the sentence is in each image, best first: its noun phrases, or those given, a list or a
        text such as "a man; two small dogs", which must be its own words. The rest: see `find`."""
        query = self.phrase_query(sentence, phrases)
        return self.find(images, query, threshold=threshold, nms_iou=nms_iou, top_k=top_k)

    def label_query(self, labels: str | Sequence[str], chunk: int | str = "auto") -> Query:
        """See `detect`. UserError for labels that are empty, given twice, or too long for the model."""
        self._need("detector")
        if chunk != "auto" and not (isinstance(chunk, int) and chunk > 0):
            raise UserError(f'chunk {chunk!r}: give the number of labels in a prompt, from 1, or "auto"')
        names = prompts.parse_prompt(labels) if isinstance(labels, str) else prompts.distinct(labels)
        published = self.loaded.config["preprocessing"]["published_names"]
        shown = prompts.shown_names([name.strip() for name in names], published=published)
        return Query(names, label_prompts(shown, self.loaded.tokenizer, self.loaded.text_length, chunk))

    def phrase_query(self, sentence: str, phrases: str | Sequence[str] | None = None) -> Query:
        """See `ground`. UserError for a sentence without phrases or too long for the model."""
        self._need("detector")
        if isinstance(phrases, str):
            phrases = [phrase.strip() for phrase in phrases.split(";") if phrase.strip()]
        if phrases is None:
            found = prompts.noun_phrases(sentence)
        else:
            found = list(zip(phrases, prompts.locate_phrases(sentence, phrases)))
        if not found:
            raise UserError(f"{sentence!r} has no phrase to look for; write one that names things, or give phrases")
        prompt = prompts.Prompt(sentence, [[span] for _, span in found])
        encoded = prompts.encode_prompt(self.loaded.tokenizer, prompt, self.loaded.text_length)
        if encoded.truncated:
            raise UserError(
                f"{sentence[:80]!r} is longer than the model's {self.loaded.text_length} tokens; shorten it"
            )
        return Query([phrase for phrase, _ in found], [encoded])

    def find(
        self, images: Picture | Sequence[Picture], query: Query, *, threshold: float = 0.3,
        nms_iou: float | None = None, top_k: int | None = None,
    ) -> list[Detection] | list[list[Detection]]:  # fmt: skip
        """Detections with a score of at least `threshold`, the `top_k` best of each image; of those of one label that
        overlap by more than `nms_iou` the best. By default the checkpoint's own settings for the last two."""
        for name, value in {"threshold": threshold, "nms_iou": nms_iou}.items():
            if value is not None and not 0 <= value <= 1:
                raise UserError(f"{name} {value}: must be between 0 and 1")
        if top_k is not None and top_k < 1:
            raise UserError(f"top_k {top_k}: must be at least 1")
        pictures, single = _listed(images)
        # A score is the root of a probability times another one, so it needs a probability of its square.
        given = {"score_threshold": threshold**2, "nms_iou": nms_iou, "max_detections": top_k}
        settings = self.task.postprocessing | {name: value for name, value in given.items() if value is not None}
        preprocessing = self.loaded.config["preprocessing"]
        transform = RegionTransform((preprocessing["short_side"],), preprocessing["longest_side"], flip=0)
        found = []
        for part in self._parts(pictures):
            opened = [read_picture(picture) for picture in part]
            pixels = [transform(picture, NO_BOXES[:, :4])[0] for picture in opened]
            sizes = [torch.tensor([picture.height, picture.width]) for picture in opened]
            batch = to_device(Asked.all(query.prompts, len(part)).batch(pixels, sizes), self.device)
            for picture, rows in zip(opened, self.task.predict(batch | {"postprocessing": settings})):
                rows = ranked(rows.astype(float))
                best = rows[rows[:, 4] >= threshold][: settings["max_detections"]]
                found.append(_detections(best, query.names, picture.size))
        return found[0] if single else found

    def _need(self, part: str) -> None:
        if getattr(self.task, part, None) is None:
            raise UserError(f"{self.loaded.path} is a checkpoint of {self.loaded.name}, without {NEEDS[part]}")

    def _embed(self, inputs: Any, features: Callable[[list], Tensor]) -> np.ndarray:
        self._need("temperature")
        items, single = _listed(inputs)
        return _rows([features(part) for part in self._parts(items)], single)

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


def _detections(rows: np.ndarray, names: list[str], size: tuple[int, int]) -> list[Detection]:
    """Rows (n, 6) of a box that names its first and last pixel, score and label; size: (width, height)."""
    rows[:, 2:4] = np.minimum(rows[:, 2:4] + 1, size)
    return [Detection(names[int(label)], int(label), score, tuple(box)) for *box, score, label in rows.tolist()]


def to_supervision(detections: Sequence[Detection]) -> "supervision.Detections":
    """The detections of one image for the package `supervision`: `data["class_name"]` has the labels."""
    supervision = optional("supervision", "supervision is not installed; get it by `pip install supervision`")
    labels, indices, scores, boxes = zip(*detections) if detections else ((), (), (), ())
    return supervision.Detections(
        xyxy=np.array(boxes, np.float32).reshape(-1, 4),
        confidence=np.array(scores, np.float32),
        class_id=np.array(indices, int),
        data={"class_name": np.array(labels, str)},
    )


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
    files = list(dict.fromkeys(find_images(paths)))
    shown = len(files) > batch and sys.stderr.isatty()
    done = []
    for first in tqdm(range(0, len(files), batch), unit="batch", disable=not shown, dynamic_ncols=True):
        kept, pictures, bad = usable(files[first : first + batch], open_image, str)
        for file, reason in bad:
            print(f"left out: {file}: {reason}", file=sys.stderr)
        for file, text in zip(kept, describe(pictures) if pictures else ()):
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
