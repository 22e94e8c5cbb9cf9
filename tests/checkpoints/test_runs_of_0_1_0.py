"""Runs that version 0.1.0 wrote: they load, resume and give the outputs and losses of that version."""

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from fiber_cli import Fiber
from fiber_cli.data.scenes.drawing import draw
from fiber_cli.data.scenes.layout import scene

FOLDER = Path(__file__).parents[1] / "assets" / "runs_0_1_0"
EXPECTED = json.loads((FOLDER / "expected.json").read_text())
#: Other processors' kernels differ by 3e-7.
CLOSE = {"rel": 1e-5, "abs": 1e-5}


@pytest.fixture(params=["coarse", "detector"])
def run(request, tmp_path):
    """A run folder at step 2 of 4."""
    with tarfile.open(FOLDER / f"{request.param}.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / request.param


def pictures(outputs):
    return [draw(scene(p["seed"], p["split"], p["number"], p["size"])) for p in outputs["pictures"]]


def close(value, expected):
    """Equal but for rounding, at any depth."""
    if isinstance(expected, dict):
        return value.keys() == expected.keys() and all(close(value[key], expected[key]) for key in expected)
    if isinstance(expected, list | tuple):
        return len(value) == len(expected) and all(map(close, value, expected))
    return value == pytest.approx(expected, **CLOSE) if isinstance(expected, float) else value == expected


def test_a_checkpoint_gives_other_outputs_than_before(run):
    outputs = EXPECTED[run.name]["outputs"]
    model = Fiber.from_pretrained(run, "cpu")
    if run.name == "coarse":
        assert close(model.embed_images(pictures(outputs)).tolist(), outputs["embed_images"])
        assert close(model.embed_texts(outputs["texts"]).tolist(), outputs["embed_texts"])
        assert close(model.match(pictures(outputs), outputs["texts"]).tolist(), outputs["match"])
    else:
        for picture, expected in zip(pictures(outputs), outputs["detect"], strict=True):
            detections = model.detect(picture, outputs["labels"], **outputs["options"])
            assert [detection.label for detection in detections] == [each["label"] for each in expected]
            for detection, each in zip(detections, expected, strict=True):
                assert detection.index == each["index"]
                assert detection.score == pytest.approx(each["score"], **CLOSE)
                assert list(detection.box) == pytest.approx(each["box"], **CLOSE)


def test_a_run_goes_on_with_other_losses_than_before(run):
    resume = EXPECTED[run.name]["resume"].split()[1:]
    done = subprocess.run(
        [sys.executable, "-m", "fiber_cli", *resume], cwd=run.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    resumed = [record for record in records if record["step"] > 2]
    for record, expected in zip(resumed, EXPECTED[run.name]["resumed"], strict=True):
        # Later versions measure more.
        assert close({name: record[name] for name in expected}, expected)
