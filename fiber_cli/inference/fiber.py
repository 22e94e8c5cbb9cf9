"""`Fiber`: pictures and texts in, plain Python results out."""

# Overloads overlap in `str`, which is one picture here although it is a sequence of strings.
# mypy: disable-error-code="overload-overlap"

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self, overload

import numpy as np
import torch
from torch import Tensor

from fiber_cli.checkpoints.loading import Loaded, load
from fiber_cli.data.text import encode
from fiber_cli.data.transforms import EvalTransform
from fiber_cli.distributed.device import device as default_device
from fiber_cli.distributed.device import to_device
from fiber_cli.errors import UserError
from fiber_cli.inference import queries
from fiber_cli.inference.detections import Detection, detections_of
from fiber_cli.inference.pictures import Picture, batches, pairs_of, pictures_of, read_picture, texts_of
from fiber_cli.inference.queries import Query
from fiber_cli.model.fusion import ImageStem, TextStem
from fiber_cli.model.pixels import normalize
from fiber_cli.tasks.abilities import Answering, Captioning, Detecting, Embedding, Matching
from fiber_cli.tasks.regions.detection_rows import ranked

#: Inputs in one pass, where that is not given.
BATCH_SIZE, DETECTION_BATCH_SIZE = 32, 4


class Fiber:
    """A checkpoint in use. Every method takes one input or a list of them and answers in kind.

    Pictures are paths, PIL images or uint8 RGB arrays (H, W, 3); an array (N, H, W, 3) is taken as a list of N. Files
    are turned upright by their EXIF orientation, PIL images are taken as they are. Raises UserError for pictures that
    cannot be read and for what the checkpoint was not trained for. batch_size: inputs in one pass; 32 where it is not
    given, 4 for detection. What a method is told holds for that call alone.
    """

    def __init__(self, loaded: Loaded, device: torch.device | None = None, batch_size: int | None = None):
        self.loaded = loaded
        self.context = loaded.context
        self.device = device or default_device()
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
        keeps one, and with latest=True the latest. Which it is stands in `loaded.path` and on standard error."""
        loaded = load(path, latest=latest)
        return cls(loaded, None if device is None else torch.device(device), batch_size)

    @torch.inference_mode()
    def embed_images(self, images: Picture | Sequence[Picture]) -> np.ndarray:
        """Dual-encoder features, float32 (D,) or (N, D), L2 norm 1."""
        dual_encoder = self.loaded.ability(Embedding)
        pictures, single = pictures_of(images)
        features = []
        for batch in batches(pictures, self.batch_size):
            features.append(dual_encoder.image_features(self._image_stems(batch)))
        return _array(features, single)

    @torch.inference_mode()
    def embed_texts(self, texts: str | Sequence[str]) -> np.ndarray:
        """Dual-encoder features, float32 (D,) or (N, D), L2 norm 1."""
        dual_encoder = self.loaded.ability(Embedding)
        sentences, single = texts_of(texts)
        features = []
        for batch in batches(sentences, self.batch_size):
            features.append(dual_encoder.text_features(self._text_stems(batch)))
        return _array(features, single)

    @overload
    def match(self, images: Picture, texts: str) -> float: ...
    @overload
    def match(self, images: Sequence[Picture], texts: str | Sequence[str]) -> np.ndarray: ...
    @overload
    def match(self, images: Picture, texts: Sequence[str]) -> np.ndarray: ...
    @torch.inference_mode()
    def match(self, images: Picture | Sequence[Picture], texts: str | Sequence[str]) -> float | np.ndarray:
        """The "matched" logit of the ITM head for each pair (image n, text n); one of the two may stand for all."""
        matcher = self.loaded.ability(Matching)
        pairs, single = pairs_of(images, texts)
        matched = []
        for image, text in self._pair_stems(pairs):
            matched.append(matcher.match(image, text)[:, 1])
        logits = _array(matched, single)
        return float(logits) if single else logits

    @overload
    def answer(self, images: Picture, questions: str) -> str: ...
    @overload
    def answer(self, images: Sequence[Picture], questions: str | Sequence[str]) -> list[str]: ...
    @overload
    def answer(self, images: Picture, questions: Sequence[str]) -> list[str]: ...
    @torch.inference_mode()
    def answer(self, images: Picture | Sequence[Picture], questions: str | Sequence[str]) -> str | list[str]:
        """The most probable answer of the vocabulary for each (image, question); one of the two may stand for all."""
        answerer = self.loaded.ability(Answering)
        labels = self.context.labels
        assert labels is not None
        pairs, single = pairs_of(images, questions)
        answers: list[str] = []
        for image, text in self._pair_stems(pairs):
            for label in answerer.logits(image, text).argmax(1).tolist():
                answers.append(labels[label])
        return answers[0] if single else answers

    @overload
    def caption(
        self, images: Picture, beam: int = 5, as_published: bool = False, *, published: bool | None = None
    ) -> str: ...
    @overload
    def caption(
        self, images: Sequence[Picture], beam: int = 5, as_published: bool = False, *, published: bool | None = None
    ) -> list[str]: ...
    @torch.inference_mode()
    def caption(
        self,
        images: Picture | Sequence[Picture],
        beam: int = 5,
        as_published: bool = False,
        *,
        published: bool | None = None,
    ) -> str | list[str]:
        """A caption for each image by beam search. as_published: search as the authors' code does; published: its name
        in earlier versions."""
        if published is not None:
            warnings.warn("caption(published=…) is now caption(as_published=…)", DeprecationWarning, stacklevel=3)
            as_published = published
        captioner = self.loaded.ability(Captioning)
        pictures, single = pictures_of(images)
        captions: list[str] = []
        for batch in batches(pictures, self.batch_size):
            tokens = captioner.caption_pixels(self._pixels(batch), beam=beam, as_published=as_published)
            for text in self.context.tokenizer.batch_decode(tokens, skip_special_tokens=True):
                captions.append(text.strip())
        return captions[0] if single else captions

    @overload
    def detect(
        self,
        images: Picture,
        labels: str | Sequence[str],
        *,
        threshold: float = 0.3,
        nms_iou: float | None = None,
        top_k: int | None = None,
        chunk: int | str = "auto",
    ) -> list[Detection]: ...
    @overload
    def detect(
        self,
        images: Sequence[Picture],
        labels: str | Sequence[str],
        *,
        threshold: float = 0.3,
        nms_iou: float | None = None,
        top_k: int | None = None,
        chunk: int | str = "auto",
    ) -> list[list[Detection]]: ...
    def detect(
        self,
        images: Picture | Sequence[Picture],
        labels: str | Sequence[str],
        *,
        threshold: float = 0.3,
        nms_iou: float | None = None,
        top_k: int | None = None,
        chunk: int | str = "auto",
    ) -> list[Detection] | list[list[Detection]]:
        """What is where in each image, best first. labels: names, or one text such as "cat . traffic light". More than
        the text window holds are asked in several prompts of at most `chunk` names. The rest: see `find`."""
        query = self.label_query(labels, chunk)
        return self.find(images, query, threshold=threshold, nms_iou=nms_iou, top_k=top_k)

    @overload
    def ground(
        self,
        images: Picture,
        sentence: str,
        phrases: str | Sequence[str] | None = None,
        *,
        threshold: float = 0.3,
        nms_iou: float | None = None,
        top_k: int | None = None,
    ) -> list[Detection]: ...
    @overload
    def ground(
        self,
        images: Sequence[Picture],
        sentence: str,
        phrases: str | Sequence[str] | None = None,
        *,
        threshold: float = 0.3,
        nms_iou: float | None = None,
        top_k: int | None = None,
    ) -> list[list[Detection]]: ...
    def ground(
        self,
        images: Picture | Sequence[Picture],
        sentence: str,
        phrases: str | Sequence[str] | None = None,
        *,
        threshold: float = 0.3,
        nms_iou: float | None = None,
        top_k: int | None = None,
    ) -> list[Detection] | list[list[Detection]]:
        """Where each phrase of the sentence is in each image, best first: its noun phrases, or those given, a list or a
        text such as "a man; two small dogs", which must be its own words. The rest: see `find`."""
        query = self.phrase_query(sentence, phrases)
        return self.find(images, query, threshold=threshold, nms_iou=nms_iou, top_k=top_k)

    def label_query(self, labels: str | Sequence[str], chunk: int | str = "auto") -> Query:
        """See `detect`. UserError for labels that are empty, given twice, or too long for the model."""
        self.loaded.ability(Detecting)
        return queries.label_query(self.context, labels, chunk)

    def phrase_query(self, sentence: str, phrases: str | Sequence[str] | None = None) -> Query:
        """See `ground`. UserError for a sentence without phrases or too long for the model."""
        self.loaded.ability(Detecting)
        return queries.phrase_query(self.context, sentence, phrases)

    @overload
    def find(
        self,
        images: Picture,
        query: Query,
        *,
        threshold: float = 0.3,
        nms_iou: float | None = None,
        top_k: int | None = None,
    ) -> list[Detection]: ...
    @overload
    def find(
        self,
        images: Sequence[Picture],
        query: Query,
        *,
        threshold: float = 0.3,
        nms_iou: float | None = None,
        top_k: int | None = None,
    ) -> list[list[Detection]]: ...
    @torch.inference_mode()
    def find(
        self,
        images: Picture | Sequence[Picture],
        query: Query,
        *,
        threshold: float = 0.3,
        nms_iou: float | None = None,
        top_k: int | None = None,
    ) -> list[Detection] | list[list[Detection]]:
        """Detections with a score of at least `threshold`, the `top_k` best of each image; of those of one label that
        overlap by more than `nms_iou` the best. By default the checkpoint's own settings for the last two."""
        detector = self.loaded.ability(Detecting)
        _check_limits(threshold, nms_iou, top_k)
        pictures, single = pictures_of(images)
        # A score is the root of a probability times another one, so it needs a probability of its square.
        settings = {**detector.postprocessing, "score_threshold": threshold**2}
        if nms_iou is not None:
            settings["nms_iou"] = nms_iou
        if top_k is not None:
            settings["max_detections"] = top_k
        detections = []
        for batch in batches(pictures, self.batch_size):
            opened = [read_picture(picture) for picture in batch]
            prompted = to_device(queries.prompted(opened, query, self.context), self.device)
            predictions = detector.predict({**prompted, "postprocessing": settings})
            for picture, rows in zip(opened, predictions, strict=True):
                best_first = ranked(rows.astype(float))
                sure = best_first[best_first[:, 4] >= threshold]
                limited = sure[: settings["max_detections"]]
                detections.append(detections_of(limited, query.names, picture.size))
        return detections[0] if single else detections

    def _pair_stems(self, pairs: list[tuple[Picture, str]]) -> Iterator[tuple[ImageStem, TextStem]]:
        """Stems of the pairs, a batch at a time; a picture of several pairs of a batch has its stem computed once."""
        for batch in batches(pairs, self.batch_size):
            pictures: list[Picture] = []
            texts: list[str] = []
            row_of: dict[int, int] = {}
            rows: list[int] = []
            for picture, text in batch:
                if id(picture) not in row_of:
                    row_of[id(picture)] = len(pictures)
                    pictures.append(picture)
                rows.append(row_of[id(picture)])
                texts.append(text)
            stems = self._image_stems(pictures)
            yield ImageStem(stems.map[rows]), self._text_stems(texts)

    def _image_stems(self, pictures: list[Picture]) -> ImageStem:
        return self.task.encoder.image_stem(normalize(self._pixels(pictures)))

    def _pixels(self, pictures: list[Picture]) -> Tensor:
        """Uint8 (B, 3, H, W) on the device."""
        pixels = [self.transform(read_picture(picture)) for picture in pictures]
        return torch.stack(pixels).to(self.device)

    def _text_stems(self, texts: list[str]) -> TextStem:
        ids, mask, truncated = encode(self.context.tokenizer, texts, self.context.text_length)
        if truncated:
            longest = max(texts, key=len)
            raise UserError(
                f"{truncated} of the texts are longer than the model's {self.context.text_length} tokens, such as "
                f"{longest[:80]!r}; shorten them"
            )
        return self.task.encoder.text_stem(ids.to(self.device), mask.to(self.device))


def _check_limits(threshold: float, nms_iou: float | None, top_k: int | None) -> None:
    for name, value in {"threshold": threshold, "nms_iou": nms_iou}.items():
        if value is not None and not 0 <= value <= 1:
            raise UserError(f"{name} {value}: must be between 0 and 1")
    if top_k is not None and top_k < 1:
        raise UserError(f"top_k {top_k}: must be at least 1")


def _array(results: list[Tensor], single: bool) -> np.ndarray:
    """The results of all batches; of one input its own."""
    array: np.ndarray = torch.cat(results).cpu().numpy()
    return array[0] if single else array
