"""What is given to the methods, of a wrong type or size, and of types that say the same."""

import inspect
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_detector import LABELS, assert_same

from fiber_cli.errors import UserError
from fiber_cli.inference.arguments import Count, Share, Texts, checked
from fiber_cli.inference.fiber import Fiber
from fiber_cli.inference.folder_search import FolderSearch
from fiber_cli.inference.results import Detections

PICTURE = Image.new("RGB", (40, 30), "red")
#: What a call of each method needs, and which of the models below it is of.
REQUIRED = {
    "from_pretrained": ("caption", {"path": "builtin/vqa"}),
    "embed_images": ("retrieval", {"images": PICTURE}),
    "embed_texts": ("retrieval", {"texts": "a star"}),
    "match": ("retrieval", {"images": PICTURE, "texts": "a star"}),
    "with_index": ("retrieval", {"folder": "."}),
    "match_threshold_of": ("retrieval", {"text": "a star"}),
    "search_threshold_of": ("retrieval", {"text": "a star"}),
    "unseen_words": ("retrieval", {"texts": "a star"}),
    "answer": ("vqa", {"images": PICTURE, "questions": "what?"}),
    "answers": ("vqa", {"images": PICTURE, "questions": "what?"}),
    "caption": ("caption", {"images": PICTURE}),
    "captions": ("caption", {"images": PICTURE}),
    "detect": ("detection", {"images": PICTURE, "labels": LABELS}),
    "ground": ("detection", {"images": PICTURE, "phrases": LABELS}),
    "label_query": ("detection", {"labels": LABELS}),
    "phrase_query": ("detection", {"sentence": None, "phrases": LABELS}),
    "find": ("detection", {"images": PICTURE}),
    "search": ("folder", {"queries": "a star"}),
    "draw": ("detections", {}),
    "save": ("detections", {"file": "a.png"}),
    "show": ("detections", {}),
}
#: They are given what other methods have read.
NOT_FOR_USERS = {"warn_of_unseen", "of"}


@pytest.fixture(scope="module")
def objects(runs, detector, retriever, tmp_path_factory):
    """Those that have the methods, by name."""
    folder = tmp_path_factory.mktemp("folder")
    PICTURE.save(folder / "a.png")
    retrieval = Fiber(retriever())
    return {
        "caption": Fiber.from_pretrained(runs["caption"]),
        "vqa": Fiber.from_pretrained(runs["vqa"]),
        "detection": detector,
        "retrieval": retrieval,
        "folder": retrieval.with_index(folder),
        "detections": Detections(picture=PICTURE),
    }


@pytest.fixture(scope="module")
def call(objects):
    """Calls a method with what it needs and with what is given."""

    def of(name, /, **given):
        model, required = REQUIRED[name]
        if name == "find":
            required = required | {"query": objects[model].label_query(LABELS)}
        return getattr(objects[model], name)(**required | given)

    return of


def parameters_of_methods():
    """(method, parameter) of all that a user may give something to."""
    parameters = []
    for kind in (Fiber, FolderSearch, Detections):
        for name, method in inspect.getmembers(kind, inspect.isroutine):
            if not name.startswith("_") and name not in NOT_FOR_USERS and not hasattr(list, name):
                named = inspect.signature(method).parameters
                parameters += [(name, parameter) for parameter in named if parameter != "self"]
    return parameters


@pytest.mark.parametrize(("method", "parameter"), parameters_of_methods())
def test_a_wrong_type_is_a_traceback(call, method, parameter):
    with pytest.raises(UserError, match=parameter):
        call(method, **{parameter: object()})


@pytest.mark.parametrize(
    ("method", "given", "message"),
    [
        ("from_pretrained", {"tf32": "yes"}, "tf32='yes': give True or False"),
        ("from_pretrained", {"path": None}, "path=None: give a path"),
        ("from_pretrained", {"path": 3}, "path=3: give a path"),
        ("from_pretrained", {"batch_size": 1.5}, "batch_size=1.5: give a whole number from 1"),
        ("from_pretrained", {"batch_size": 0}, "batch_size=0: give a whole number from 1"),
        ("from_pretrained", {"device": 1.5}, "device=1.5: give a name"),
        ("detect", {"labels": None}, "labels=None: give a text, or a list of texts"),
        ("detect", {"labels": {"cat": 1}}, r"labels=\{'cat': 1\}: give a text, or a list of texts"),
        ("detect", {"labels": ["cat", 3]}, r"labels\[1\]=3: give a text"),
        ("detect", {"threshold": "x"}, "threshold='x': give a number from 0 to 1"),
        ("detect", {"threshold": math.nan}, "threshold=nan: give a number from 0 to 1"),
        ("detect", {"threshold": 1.5}, "threshold=1.5: give a number from 0 to 1"),
        ("detect", {"top_k": 1.5}, "top_k=1.5: give a whole number from 1"),
        ("detect", {"top_k": True}, "top_k=True: give a whole number from 1"),
        ("detect", {"nms_iou": "a"}, "nms_iou='a': give a number from 0 to 1"),
        ("detect", {"chunk": True}, 'chunk=True: give the number of labels in a prompt, from 1, or "auto"'),
        ("detect", {"max_pixels": "x"}, "max_pixels='x': give a whole number from 1"),
        ("detect", {"images": {"a.png": 1}}, "images={'a.png': 1}: give pictures; wanted is a path"),
        ("caption", {"images": None}, "images=None: give pictures; wanted is a path"),
        ("caption", {"beam": 1.5}, "beam=1.5: give a whole number from 1"),
        ("caption", {"beam": np.bool_(True)}, "beam=.*: give a whole number from 1"),
        ("captions", {"k": 1.5}, "k=1.5: give a whole number from 1"),
        ("captions", {"k": None}, "k=None: give a whole number from 1"),
        ("captions", {"beam": -2}, "beam=-2: give a whole number from 1"),
        ("answers", {"k": "x"}, "k='x': give a whole number from 1"),
        ("answers", {"k": None}, "k=None: give a whole number from 1"),
        ("answer", {"questions": b"what?"}, "questions=b'what\\?': give a text, or a list of texts"),
        ("with_index", {"folder": None}, "folder=None: give a path"),
        ("with_index", {"fusion": "x"}, "fusion='x': give a `Fiber`"),
        ("with_index", {"workers": -1}, "workers=-1: give a whole number from 0"),
        ("with_index", {"max_pixels": 0}, "max_pixels=0: give a whole number from 1"),
        ("search", {"k": 1.5}, "k=1.5: give a whole number from 1"),
        ("search", {"k": "x"}, "k='x': give a whole number from 1"),
        ("search", {"candidates": 0}, "candidates=0: give a whole number from 1"),
        ("search", {"threshold": "x"}, "threshold='x': give a number"),
        ("search", {"threshold": math.nan}, "threshold=nan: give a number"),
        ("search", {"threshold": math.inf}, "threshold=inf: give a number that is finite"),
        ("detect", {"on_error": "x"}, 'on_error=\'x\': give "raise" or "skip"'),
        ("caption", {"on_error": None}, 'on_error=None: give "raise" or "skip"'),
        ("from_pretrained", {"precision": "int4"}, 'precision=\'int4\': give "auto", "fp32", .* or "int8"'),
        ("from_pretrained", {"precision": np.zeros(2)}, 'precision=array.*: give "auto"'),
        ("with_index", {"index": "a\0b"}, "index='a.*b': give a path"),
        ("save", {"file": "a\0.png"}, "file='a.*png': give a path"),
        ("save", {"file": ""}, "file='': give a path"),
        ("match_threshold_of", {"text": None}, "text=None: give a text"),
    ],
)
def test_an_error_does_not_say_what_was_given_and_what_is_wanted(call, method, given, message):
    with pytest.raises(UserError, match=f"^{message}"):
        call(method, **given)


@pytest.mark.parametrize("given", ["a star" * 1000, ["x" * 5000, 3], range(10_000)])
def test_an_error_repeats_all_of_what_was_given(call, given):
    with pytest.raises(UserError) as caught:
        call("detect", top_k=given)
    assert len(str(caught.value)) < 150


def test_python_says_nothing_of_arguments_that_are_missing_or_unknown(call, objects):
    with pytest.raises(TypeError, match=r"detect\(\) missing 1 required positional argument: 'labels'"):
        objects["detection"].detect(PICTURE)
    with pytest.raises(TypeError, match=r"caption\(\) got an unexpected keyword argument 'beams'"):
        call("caption", beams=2)


def test_numbers_of_numpy_are_refused(call):
    expected = call("detect", threshold=0.25, top_k=3, chunk=2, max_pixels=5000)
    as_numpy = {"threshold": np.float32(0.25), "top_k": np.int64(3), "chunk": np.uint8(2), "max_pixels": np.int32(5000)}
    assert_same(call("detect", **as_numpy), expected)
    assert call("search", threshold=np.float64(0), k=np.int16(2)) == call("search", threshold=0, k=2)
    assert call("captions", k=np.int64(2), as_published=np.bool_(False)) == call("captions", k=2)


def test_a_method_gets_what_it_was_given_and_no_plain_values():
    @checked
    def method(count: Count, share: Share | None = None, texts: Texts | None = None, other: int = 0):
        return count, share, texts, other

    (count, share, texts, other) = method(np.int64(2), np.float64(0.5), (text for text in "ab"), "not read")
    assert (type(count), type(share), texts, other) == (int, float, ["a", "b"], "not read")
    assert method(1) == (1, None, None, 0)


def once(items):
    return (item for item in items)


#: Calls that take several texts, and by what name.
OF_TEXTS = [
    ("answer", "questions", ["what?", "how many?"], {}),
    ("answers", "questions", ["what?", "how many?"], {}),
    ("detect", "labels", LABELS[:3], {"threshold": 0}),
    ("ground", "phrases", ["red circle", "dog"], {"sentence": "a red circle, a dog", "threshold": 0}),
    ("match", "texts", ["a star", "a moon"], {}),
    ("embed_texts", "texts", ["a star", "a moon"], {}),
    ("unseen_words", "texts", ["a star", "a moon"], {}),
    ("search", "queries", ["a star", "a moon"], {}),
]


@pytest.mark.parametrize(("method", "name", "texts", "options"), OF_TEXTS)
def test_texts_that_are_no_list_are_lost(call, method, name, texts, options):
    expected = call(method, **options, **{name: texts})
    for several in (once(texts), tuple(texts), np.array(texts), dict.fromkeys(texts).keys()):
        np.testing.assert_equal(call(method, **options, **{name: several}), expected)


@pytest.mark.parametrize(("method", "name", "texts", "options"), OF_TEXTS)
def test_the_keys_of_a_mapping_are_taken_for_texts(call, method, name, texts, options):
    with pytest.raises(UserError, match=f"{name}=.*give a text, or a list of texts"):
        call(method, **options, **{name: dict.fromkeys(texts)})


def test_pictures_and_texts_that_come_once_are_no_pairs(call):
    pictures = [PICTURE, PICTURE.rotate(90, expand=True)]
    expected = call("answer", images=pictures, questions=["what?", "how many?"])
    assert call("answer", images=once(pictures), questions=once(["what?", "how many?"])) == expected


@pytest.mark.parametrize(
    "tensor", [torch.zeros(3, 4, 5).byte().to_sparse(), torch.zeros(3, 4, 5, device="meta").byte()]
)
def test_a_tensor_that_holds_no_pixels_is_a_traceback(call, tensor):
    with pytest.raises(UserError, match="a sparse tensor, or one without values"):
        call("caption", images=tensor)


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
def test_a_picture_without_pixels_is_a_traceback(call, size):
    width, height = size
    for empty in (
        Image.new("RGB", size),
        Image.new("RGBA", size),
        Image.new("I;16", size),
        np.zeros((height, width, 3), np.uint8),
        torch.zeros((3, height, width), dtype=torch.uint8),
    ):
        for method in ("detect", "caption", "embed_images"):
            with pytest.raises(UserError, match=f"{width} x {height} pixels|an array of|a tensor of"):
                call(method, images=empty)


def test_a_path_is_taken_as_a_text_alone(call, tmp_path):
    for file in (tmp_path / "a.png", str(tmp_path / "b.png"), EntryOfAFolder(tmp_path / "c.png")):
        assert call("save", file=file).is_file()


class EntryOfAFolder:
    """A path of another class than `Path`."""

    def __init__(self, path: Path):
        self.path = path

    def __fspath__(self) -> str:
        return str(self.path)
