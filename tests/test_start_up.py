"""What commands on one's own pictures import: by the names of modules, as seconds differ between machines."""

import json
import subprocess
import sys

import pytest

#: Packages that take long to import, each with what needs it. None of it is needed to use a checkpoint on a CPU.
HEAVY = {
    "deepspeed": "training",
    "matplotlib": "curves",
    "nltk": "phrases of sentences",
    "pycocotools": "masks, and AP by the reference",
    "faster_coco_eval": "AP",
    "pycocoevalcap": "scores of captions",
    "scipy": "hashes of images",
    "sympy": "torch's compiler",
    "tensorboard": "training",
    "timm": "first weights of the image tower",
    "torch._dynamo": "torch's compiler",
    "torch._inductor": "torch's compiler",
    "torchvision": "other heads of the detector, GPUs",
    "transformers": "tokenisers of other forms, first weights of the text tower",
    "huggingface_hub": "the hub",
}
PROGRAM = f"""
import json, runpy, sys
arguments = json.loads(sys.argv[1])
sys.argv = ["fiber", *arguments]
try:
    runpy.run_module("fiber_cli", run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
print("loaded:", json.dumps([name for name in {sorted(HEAVY)!r} if name in sys.modules]))
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    from fiber_cli.data.sources.scenes import SceneDetection

    folder = tmp_path_factory.mktemp("pictures")
    for number in range(2):
        SceneDetection("val", 2).image(number).save(folder / f"{number}.png")
    return folder


def loaded_by(arguments: list[str], program: str = PROGRAM) -> tuple[list[str], str]:
    """The names of HEAVY that a command has loaded when it ends, and what it printed."""
    words = [sys.executable, "-c", program, json.dumps(arguments)]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    printed, _, names = ended.stdout.rpartition("loaded: ")
    return json.loads(names), printed


@pytest.mark.parametrize("verb", ["detect", "caption", "answer", "rerank"])
def test_a_command_imports_what_it_does_not_need(verb, pictures, tmp_path):
    picture = str(pictures / "0.png")
    arguments = {
        "detect": ["detect", picture, "star . ring", "--out", str(tmp_path / "out")],
        "caption": ["caption", picture],
        "answer": ["answer", picture, "what colour is the star?"],
        "rerank": ["rerank", "--images", str(pictures), "--query", "a star"],
    }
    names, printed = loaded_by([*arguments[verb], "--checkpoint", "builtin"])
    assert names == [], [f"{name}, for {HEAVY[name]}" for name in names]
    assert printed


#: Commands for which no network is needed, or that fail before it is, with something that they then say.
WITHOUT_NETWORK = [
    (["models"], "all shipped with fiber"),
    (["table", "4"], "figures are missing"),
    (["table", "all", "--json"], "itc/ir@1"),
    (["recipes"], "detection_small"),
    (["data", "get", "4m"], "nothing is fetched"),
    (["caption", "none.png"], "none.png: no such file"),
    (["answer", "none.png", "what is it?"], "none.png: no such file"),
    (["detect", "none.png", "cat"], "none.png: no such file"),
    (["detect", "none.png", "cat", "--checkpoint", "builtin"], "none.png: no such file"),
    (["detect", "https://example.org/a.jpg", "cat"], "a URL; download it"),
    (["rerank", "--images", "none", "--query", "a star"], "--images none: no such folder"),
    (["rerank", "--images", "none", "a star"], "unknown dataset 'a star'"),
    (["rerank", "coco"], "lies below runs/"),
    (["eval", "none.json"], "none.json"),
]


@pytest.mark.parametrize(("arguments", "said"), WITHOUT_NETWORK, ids=[" ".join(words) for words, _ in WITHOUT_NETWORK])
def test_torch_is_imported_for_what_needs_no_network(arguments, said, tmp_path):
    program = """
import runpy, sys
sys.argv = ["fiber", *sys.argv[1:]]
try:
    runpy.run_module("fiber_cli", run_name="__main__")
except SystemExit:
    pass
print("torch" in sys.modules)
"""
    words = [sys.executable, "-c", program, *arguments]
    ended = subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert said in ended.stdout + ended.stderr
    assert ended.stdout.splitlines()[-1] == "False"


def test_pairs_are_matched_with_more_than_is_needed(pictures):
    program = f"""
import json, sys
from fiber_cli import Fiber
print(Fiber.from_pretrained("builtin/retrieval").match(json.loads(sys.argv[1])[0], ["a star", "a ring"]).tolist())
print("loaded:", json.dumps([name for name in {sorted(HEAVY)!r} if name in sys.modules]))
"""
    names, printed = loaded_by([str(pictures / "0.png")], program)
    assert names == []
    assert len(json.loads(printed)) == 2


def test_the_names_are_of_nothing():
    """Each can be imported, or the test would hold nothing."""
    from importlib.util import find_spec

    assert all(find_spec(name) is not None for name in HEAVY)
