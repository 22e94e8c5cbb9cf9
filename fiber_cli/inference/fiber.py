"""`Fiber`: pictures and texts in, plain Python results out."""

# Overloads overlap in `str`, which is one picture here although it is a sequence of strings.
# mypy: disable-error-code="overload-overlap"

import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fiber_cli.checkpoints.loading import Loaded, load
from fiber_cli.checkpoints.words import unseen_words
from fiber_cli.data.source import MAX_PIXELS
from fiber_cli.data.text import encode
from fiber_cli.data.transforms import EvalTransform
from fiber_cli.distributed.device import device_named, prediction_device, to_device
from fiber_cli.errors import UserError
from fiber_cli.inference import queries
from fiber_cli.inference.detections import Detection, best_of_objects, detections_of
from fiber_cli.inference.pictures import (
    OnError,
    Pairs,
    Picture,
    PictureReader,
    batches,
    pairs_of,
    pictures_of,
    refuse_empty,
    texts_of,
)
from fiber_cli.inference.queries import Query
from fiber_cli.model.fusion import ImageStem, TextStem
from fiber_cli.model.pixels import normalize
from fiber_cli.tasks.abilities import Answering, Captioning, Detecting, Embedding, Matching
from fiber_cli.tasks.regions.detection_rows import ranked
from fiber_cli.tasks.vqa.answers import answer_texts

#: Inputs in one pass, where that is not given.
BATCH_SIZE, DETECTION_BATCH_SIZE = 32, 4
#: Least score of a detection, where no validation has chosen one.
USUAL_THRESHOLD = 0.3


class Fiber:
    """A checkpoint in use. Every method takes one input or a list of them and answers in kind.

    Pictures are paths, image files as bytes or opened as binary, PIL images, uint8 arrays (H, W), (H, W, 3) or
    (H, W, 4), or uint8 tensors (C, H, W); an array (N, H, W, C) and a tensor (N, C, H, W) are taken as lists of N.
    Encoded images are turned upright by their EXIF orientation, the others are taken as they are; transparency is laid
    on white. Raises UserError for what the checkpoint was not trained for, and for pictures that cannot be read: with
    `on_error="skip"` one in a list costs that picture alone, whose result is None, or NaN in an array, and a warning
    names it. max_pixels: encoded images with more are not read. batch_size: inputs in one pass; 32 where it is not
    given, 4 for detection.

    What a method is told holds for that call alone, so that threads can share an object.
    """

    def __init__(self, loaded: Loaded, device: torch.device | None = None, batch_size: int | None = None):
        self.loaded = loaded
        self.context = loaded.context
        self.device = device or prediction_device()
        self.task = loaded.task.to(self.device)
        usual = DETECTION_BATCH_SIZE if isinstance(self.task, Detecting) else BATCH_SIZE
        self.batch_size = batch_size or usual
        self.transform = EvalTransform(loaded.context.model.image_size)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        device: str | torch.device | None = None,
        *,
        latest: bool = False,
        batch_size: int | None = None,
    ) -> Self:
        """Of a checkpoint directory; or of a run or a checkpoints folder, whose best one is taken where its recipe
        keeps one, and with latest=True the latest. Which it is stands in `loaded.path` and on standard error. Or
        "builtin/NAME", one that ships with fiber and knows drawn scenes only, such as "builtin/detection"; "builtin"
        alone is a UserError that lists the names, because nothing says yet what will be asked.

        device: such as "cpu", "cuda:1" or "mps"; by default a GPU where there is one. UserError where this machine has
        none of it."""
        loaded = load(path, latest=latest)
        return cls(loaded, None if device is None else device_named(device), batch_size)

    def unseen_words(self, texts: str | Sequence[str]) -> list[str]:
        """The words of the texts that no caption, name, question or other text of the checkpoint's training had, in
        small letters, each once: what is said of them is a guess. None where the words of its training are not known.
        No method warns of them by itself; the commands do."""
        sentences, _ = texts_of(texts)
        return unseen_words(self.loaded.path, sentences)

    @torch.inference_mode()
    def embed_images(
        self, images: Picture | Sequence[Picture], *, on_error: OnError = "raise", max_pixels: int = MAX_PIXELS
    ) -> np.ndarray:
        """Dual-encoder features, float32 (D,) or (N, D), L2 norm 1."""
        dual_encoder = self.loaded.ability(Embedding)
        pictures, single = pictures_of(images)
        reader = PictureReader(single, on_error, max_pixels)
        features: dict[int, np.ndarray] = {}
        for numbers, opened in reader.batches(pictures, self.batch_size):
            rows = dual_encoder.image_features(self._image_stems(opened)).cpu().numpy()
            features.update(zip(numbers, rows, strict=True))
        return features[0] if single else _in_order(features, len(pictures))

    @torch.inference_mode()
    def embed_texts(self, texts: str | Sequence[str]) -> np.ndarray:
        """Dual-encoder features, float32 (D,) or (N, D), L2 norm 1."""
        dual_encoder = self.loaded.ability(Embedding)
        sentences, single = texts_of(texts)
        features = []
        for batch in batches(sentences, self.batch_size):
            features.append(dual_encoder.text_features(self._text_stems(batch)).cpu().numpy())
        rows: np.ndarray = np.concatenate(features)
        return rows[0] if single else rows

    @overload
    def match(
        self, images: Picture, texts: str, *, on_error: OnError = "raise", max_pixels: int = MAX_PIXELS
    ) -> float: ...
    @overload
    def match(
        self,
        images: Sequence[Picture],
        texts: str | Sequence[str],
        *,
        on_error: OnError = "raise",
        max_pixels: int = MAX_PIXELS,
    ) -> np.ndarray: ...
    @overload
    def match(
        self, images: Picture, texts: Sequence[str], *, on_error: OnError = "raise", max_pixels: int = MAX_PIXELS
    ) -> np.ndarray: ...
    @torch.inference_mode()
    def match(
        self,
        images: Picture | Sequence[Picture],
        texts: str | Sequence[str],
        *,
        on_error: OnError = "raise",
        max_pixels: int = MAX_PIXELS,
    ) -> float | np.ndarray:
        """The "matched" logit of the ITM head for each pair (image n, text n); one of the two may stand for all."""
        matcher = self.loaded.ability(Matching)
        pairs = pairs_of(images, texts)
        logits: dict[int, np.ndarray] = {}
        for numbers, image, sentences in self._read_pairs(pairs, on_error, max_pixels):
            matched = matcher.match(image, self._text_stems(sentences))[:, 1].cpu().numpy()
            logits.update(zip(numbers, matched, strict=True))
        return float(logits[0]) if pairs.single else _in_order(logits, len(pairs.texts))

    @property
    def match_threshold(self) -> float | None:
        """Least logit of `match` of a text that is likely to be true of the picture, as the checkpoint's validation
        found best (`match/threshold`) for texts of `fewest_words` to `most_words` words in `loaded.config.task`; None
        where no validation has chosen one."""
        chosen = self.loaded.ability(Matching).match_threshold
        return None if chosen is None else chosen.least

    @property
    def search_threshold(self) -> float | None:
        """The same of the sum that searches rank by, the cosine of `embed_images` and `embed_texts` divided by the
        temperature plus the logit of `match`, of a checkpoint without fusion of the first alone
        (`search/threshold`)."""
        chosen = self.loaded.ability(Embedding).search_threshold
        return None if chosen is None else chosen.least

    @overload
    def answer(
        self, images: Picture, questions: str, *, on_error: OnError = "raise", max_pixels: int = MAX_PIXELS
    ) -> str: ...
    @overload
    def answer(
        self,
        images: Sequence[Picture],
        questions: str | Sequence[str],
        *,
        on_error: Literal["raise"] = "raise",
        max_pixels: int = MAX_PIXELS,
    ) -> list[str]: ...
    @overload
    def answer(
        self,
        images: Sequence[Picture],
        questions: str | Sequence[str],
        *,
        on_error: Literal["skip"],
        max_pixels: int = MAX_PIXELS,
    ) -> list[str | None]: ...
    @overload
    def answer(
        self, images: Picture, questions: Sequence[str], *, on_error: OnError = "raise", max_pixels: int = MAX_PIXELS
    ) -> list[str]: ...
    @torch.inference_mode()
    def answer(
        self,
        images: Picture | Sequence[Picture],
        questions: str | Sequence[str],
        *,
        on_error: OnError = "raise",
        max_pixels: int = MAX_PIXELS,
    ) -> str | list[str] | list[str | None]:
        """The best answer for each (image, question), of the checkpoint's vocabulary or generated; one of the two may
        stand for all."""
        answerer = self.loaded.ability(Answering)
        refuse_empty(texts_of(questions)[0], "question")
        pairs = pairs_of(images, questions)
        answers: dict[int, str] = {}
        for numbers, image, asked in self._read_pairs(pairs, on_error, max_pixels):
            rows = answerer.answer(image, *self._encoded(asked)).cpu().numpy()
            texts = answer_texts(list(rows), self.context.tokenizer, self.context.labels)
            answers.update(zip(numbers, texts, strict=True))
        return answers[0] if pairs.single else list(map(answers.get, range(len(pairs.texts))))

    @overload
    def caption(
        self,
        images: Picture,
        beam: int = 5,
        as_published: bool = False,
        *,
        published: bool | None = None,
        on_error: OnError = "raise",
        max_pixels: int = MAX_PIXELS,
    ) -> str: ...
    @overload
    def caption(
        self,
        images: Sequence[Picture],
        beam: int = 5,
        as_published: bool = False,
        *,
        published: bool | None = None,
        on_error: Literal["raise"] = "raise",
        max_pixels: int = MAX_PIXELS,
    ) -> list[str]: ...
    @overload
    def caption(
        self,
        images: Sequence[Picture],
        beam: int = 5,
        as_published: bool = False,
        *,
        published: bool | None = None,
        on_error: Literal["skip"],
        max_pixels: int = MAX_PIXELS,
    ) -> list[str | None]: ...
    @torch.inference_mode()
    def caption(
        self,
        images: Picture | Sequence[Picture],
        beam: int = 5,
        as_published: bool = False,
        *,
        published: bool | None = None,
        on_error: OnError = "raise",
        max_pixels: int = MAX_PIXELS,
    ) -> str | list[str] | list[str | None]:
        """A caption for each image by beam search. as_published: search as the authors' code does; published: its name
        in earlier versions."""
        if published is not None:
            warnings.warn("caption(published=…) is now caption(as_published=…)", DeprecationWarning, stacklevel=3)
            as_published = published
        captioner = self.loaded.ability(Captioning)
        pictures, single = pictures_of(images)
        reader = PictureReader(single, on_error, max_pixels)
        captions: dict[int, str] = {}
        for numbers, opened in reader.batches(pictures, self.batch_size):
            tokens = captioner.caption_pixels(self._pixels(opened), beam=beam, as_published=as_published)
            texts = self.context.tokenizer.batch_decode(tokens, skip_special_tokens=True)
            for number, text in zip(numbers, texts, strict=True):
                captions[number] = text.strip()
        return captions[0] if single else list(map(captions.get, range(len(pictures))))

    @property
    def threshold(self) -> float:
        """Least score, 0 to 1, of a detection that is reported where none is given: what the checkpoint's validation
        found best (`detection/threshold`), else USUAL_THRESHOLD."""
        chosen = self.loaded.ability(Detecting).threshold
        return USUAL_THRESHOLD if chosen is None else chosen

    def _limits(
        self, threshold: float | None, nms_iou: float | None, agnostic_nms_iou: float | None, top_k: int | None
    ) -> "_Limits":
        return _Limits(self.threshold if threshold is None else threshold, nms_iou, agnostic_nms_iou, top_k)

    @overload
    def detect(
        self,
        images: Picture,
        labels: str | Sequence[str],
        *,
        threshold: float | None = None,
        nms_iou: float | None = None,
        agnostic_nms_iou: float | None = None,
        top_k: int | None = None,
        chunk: int | str = "auto",
        on_error: OnError = "raise",
        max_pixels: int = MAX_PIXELS,
    ) -> list[Detection]: ...
    @overload
    def detect(
        self,
        images: Sequence[Picture],
        labels: str | Sequence[str],
        *,
        threshold: float | None = None,
        nms_iou: float | None = None,
        agnostic_nms_iou: float | None = None,
        top_k: int | None = None,
        chunk: int | str = "auto",
        on_error: Literal["raise"] = "raise",
        max_pixels: int = MAX_PIXELS,
    ) -> list[list[Detection]]: ...
    @overload
    def detect(
        self,
        images: Sequence[Picture],
        labels: str | Sequence[str],
        *,
        threshold: float | None = None,
        nms_iou: float | None = None,
        agnostic_nms_iou: float | None = None,
        top_k: int | None = None,
        chunk: int | str = "auto",
        on_error: Literal["skip"],
        max_pixels: int = MAX_PIXELS,
    ) -> list[list[Detection] | None]: ...
    def detect(
        self,
        images: Picture | Sequence[Picture],
        labels: str | Sequence[str],
        *,
        threshold: float | None = None,
        nms_iou: float | None = None,
        agnostic_nms_iou: float | None = None,
        top_k: int | None = None,
        chunk: int | str = "auto",
        on_error: OnError = "raise",
        max_pixels: int = MAX_PIXELS,
    ) -> list[Detection] | list[list[Detection]] | list[list[Detection] | None]:
        """What is where in each image, best first. labels: names, or one text such as "cat . traffic light" (see
        `tasks.regions.prompts.parse_prompt`), asked as they are written. More than the text window holds are asked in
        several prompts of at most `chunk` names. The rest: see `find`."""
        query = self.label_query(labels, chunk)
        return self._find(
            images, query, self._limits(threshold, nms_iou, agnostic_nms_iou, top_k), on_error, max_pixels
        )

    @overload
    def ground(
        self,
        images: Picture,
        sentence: str | None = None,
        phrases: str | Sequence[str] | None = None,
        *,
        threshold: float | None = None,
        nms_iou: float | None = None,
        agnostic_nms_iou: float | None = None,
        top_k: int | None = None,
        on_error: OnError = "raise",
        max_pixels: int = MAX_PIXELS,
    ) -> list[Detection]: ...
    @overload
    def ground(
        self,
        images: Sequence[Picture],
        sentence: str | None = None,
        phrases: str | Sequence[str] | None = None,
        *,
        threshold: float | None = None,
        nms_iou: float | None = None,
        agnostic_nms_iou: float | None = None,
        top_k: int | None = None,
        on_error: Literal["raise"] = "raise",
        max_pixels: int = MAX_PIXELS,
    ) -> list[list[Detection]]: ...
    @overload
    def ground(
        self,
        images: Sequence[Picture],
        sentence: str | None = None,
        phrases: str | Sequence[str] | None = None,
        *,
        threshold: float | None = None,
        nms_iou: float | None = None,
        agnostic_nms_iou: float | None = None,
        top_k: int | None = None,
        on_error: Literal["skip"],
        max_pixels: int = MAX_PIXELS,
    ) -> list[list[Detection] | None]: ...
    def ground(
        self,
        images: Picture | Sequence[Picture],
        sentence: str | None = None,
        phrases: str | Sequence[str] | None = None,
        *,
        threshold: float | None = None,
        nms_iou: float | None = None,
        agnostic_nms_iou: float | None = None,
        top_k: int | None = None,
        on_error: OnError = "raise",
        max_pixels: int = MAX_PIXELS,
    ) -> list[Detection] | list[list[Detection]] | list[list[Detection] | None]:
        """Where each phrase of the sentence is in each image, best first: its noun phrases, or those given, a list or a
        text such as "a man; two small dogs", which must be its own words. Phrases without a sentence (None) are asked
        as labels are. The rest: see `find`."""
        query = self.phrase_query(sentence, phrases)
        return self._find(
            images, query, self._limits(threshold, nms_iou, agnostic_nms_iou, top_k), on_error, max_pixels
        )

    def label_query(self, labels: str | Sequence[str], chunk: int | str = "auto") -> Query:
        """See `detect`. UserError for labels that are empty, given twice, or too long for the model."""
        self.loaded.ability(Detecting)
        return queries.label_query(self.context, labels, chunk)

    def phrase_query(self, sentence: str | None, phrases: str | Sequence[str] | None = None) -> Query:
        """See `ground`. UserError for a sentence without phrases or too long for the model, and for neither."""
        self.loaded.ability(Detecting)
        return queries.phrase_query(self.context, sentence, phrases)

    @overload
    def find(
        self,
        images: Picture,
        query: Query,
        *,
        threshold: float | None = None,
        nms_iou: float | None = None,
        agnostic_nms_iou: float | None = None,
        top_k: int | None = None,
        on_error: OnError = "raise",
        max_pixels: int = MAX_PIXELS,
    ) -> list[Detection]: ...
    @overload
    def find(
        self,
        images: Sequence[Picture],
        query: Query,
        *,
        threshold: float | None = None,
        nms_iou: float | None = None,
        agnostic_nms_iou: float | None = None,
        top_k: int | None = None,
        on_error: Literal["raise"] = "raise",
        max_pixels: int = MAX_PIXELS,
    ) -> list[list[Detection]]: ...
    @overload
    def find(
        self,
        images: Sequence[Picture],
        query: Query,
        *,
        threshold: float | None = None,
        nms_iou: float | None = None,
        agnostic_nms_iou: float | None = None,
        top_k: int | None = None,
        on_error: Literal["skip"],
        max_pixels: int = MAX_PIXELS,
    ) -> list[list[Detection] | None]: ...
    def find(
        self,
        images: Picture | Sequence[Picture],
        query: Query,
        *,
        threshold: float | None = None,
        nms_iou: float | None = None,
        agnostic_nms_iou: float | None = None,
        top_k: int | None = None,
        on_error: OnError = "raise",
        max_pixels: int = MAX_PIXELS,
    ) -> list[Detection] | list[list[Detection]] | list[list[Detection] | None]:
        """Detections with a score of at least `threshold`, the `top_k` best of each image; of those of one label that
        overlap by more than `nms_iou` the best. By default the checkpoint's own, see `Fiber.threshold`.
        agnostic_nms_iou: of those of whatever label that overlap by more the best alone, so that an object is found
        once, under its best name (0.8 does that); by default under every name."""
        return self._find(
            images, query, self._limits(threshold, nms_iou, agnostic_nms_iou, top_k), on_error, max_pixels
        )

    @torch.inference_mode()
    def _find(
        self, images: Picture | Sequence[Picture], query: Query, limits: "_Limits", on_error: OnError, max_pixels: int
    ) -> list[Detection] | list[list[Detection]] | list[list[Detection] | None]:
        detector = self.loaded.ability(Detecting)
        pictures, single = pictures_of(images)
        reader = PictureReader(single, on_error, max_pixels)
        settings = limits.over(detector.postprocessing)
        detections: dict[int, list[Detection]] = {}
        for numbers, opened in reader.batches(pictures, self.batch_size):
            prompted = to_device(queries.prompted(opened, query, self.context), self.device)
            predictions = detector.predict({**prompted, "postprocessing": settings})
            for number, picture, rows in zip(numbers, opened, predictions, strict=True):
                best_first = ranked(rows.astype(float))
                sure = best_first[best_first[:, 4] >= limits.threshold]
                detections[number] = limits.limited(
                    detections_of(sure, query.names, picture.size), detector.postprocessing
                )
        return detections[0] if single else list(map(detections.get, range(len(pictures))))

    def _read_pairs(
        self, pairs: Pairs, on_error: OnError, max_pixels: int
    ) -> Iterator[tuple[list[int], ImageStem, list[str]]]:
        """Numbers, image stems and texts of the pairs that can be read, a batch at a time; a picture of several pairs
        of a batch has its stem computed once."""
        reader = PictureReader(pairs.one_picture, on_error, max_pixels)
        for numbers in batches(range(len(pairs.texts)), self.batch_size):
            opened: list[Image.Image] = []
            row_of: dict[int, int | None] = {}
            rows = []
            kept = []
            for number in numbers:
                picture = pairs.pictures[number]
                if id(picture) not in row_of:
                    image = reader.read(number, picture)
                    row_of[id(picture)] = None if image is None else len(opened)
                    if image is not None:
                        opened.append(image)
                row = row_of[id(picture)]
                if row is not None:
                    rows.append(row)
                    kept.append(number)
            if kept:
                stems = self._image_stems(opened)
                yield kept, ImageStem(stems.map[rows]), [pairs.texts[number] for number in kept]

    def _image_stems(self, pictures: list[Image.Image]) -> ImageStem:
        return self.task.encoder.image_stem(normalize(self._pixels(pictures)))

    def _pixels(self, pictures: list[Image.Image]) -> Tensor:
        """Of RGB pictures, uint8 (B, 3, H, W) on the device."""
        pixels = [self.transform(picture) for picture in pictures]
        return torch.stack(pixels).to(self.device)

    def _text_stems(self, texts: list[str]) -> TextStem:
        return self.task.encoder.text_stem(*self._encoded(texts))

    def _encoded(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Tokens int64 and mask bool (B, L) on the device. UserError for texts that would be cut."""
        ids, mask, truncated = encode(self.context.tokenizer, texts, self.context.text_length)
        if truncated:
            longest = max(texts, key=len)
            raise UserError(
                f"{truncated} of the texts are longer than the model's {self.context.text_length} tokens, such as "
                f"{longest[:80]!r}; shorten them"
            )
        return ids.to(self.device), mask.to(self.device)


class _Limits:
    """What is reported, see `Fiber.find`. UserError for values out of range."""

    def __init__(self, threshold: float, nms_iou: float | None, agnostic_nms_iou: float | None, top_k: int | None):
        shares = {"threshold": threshold, "nms_iou": nms_iou, "agnostic_nms_iou": agnostic_nms_iou}
        for name, value in shares.items():
            if value is not None and not 0 <= value <= 1:
                raise UserError(f"{name} {value}: must be between 0 and 1")
        if top_k is not None and top_k < 1:
            raise UserError(f"top_k {top_k}: must be at least 1")
        self.threshold, self.nms_iou, self.agnostic_nms_iou, self.top_k = threshold, nms_iou, agnostic_nms_iou, top_k

    def over(self, postprocessing: Mapping[str, Any]) -> dict[str, Any]:
        """The checkpoint's settings of `model.detector.postprocess` with these over them."""
        # A score is a probability, or the root of one times another one, so it needs a probability of its square.
        settings = {**postprocessing, "score_threshold": self.threshold**2}
        if self.nms_iou is not None:
            settings["nms_iou"] = self.nms_iou
        if self.agnostic_nms_iou is not None:
            # One object under many names must not take the places of others before they are one.
            settings["max_detections"] = sys.maxsize
        elif self.top_k is not None:
            settings["max_detections"] = self.top_k
        return settings

    def limited(self, detections: list[Detection], postprocessing: Mapping[str, Any]) -> list[Detection]:
        """Of an image's detections, best first, those that are reported."""
        if self.agnostic_nms_iou is not None:
            detections = best_of_objects(detections, self.agnostic_nms_iou)
        return detections[: self.top_k or postprocessing["max_detections"]]


def _in_order(rows: Mapping[int, np.ndarray], count: int) -> np.ndarray:
    """The rows by their numbers, NaN for those that are not there. UserError where none is."""
    if not rows:
        raise UserError(f"none of {count} images could be read")
    shape = np.shape(next(iter(rows.values())))
    array = np.full((count, *shape), np.nan, np.float32)
    for number, row in rows.items():
        array[number] = row
    return array
