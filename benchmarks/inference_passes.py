"""The passes that `precision` times, and a process that does them with the code of an earlier commit.

What stands here is understood by the code of commits since 72a87ff.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.detect import fine_config
from fiber_cli.model.config import PRESETS
from fiber_cli.tasks.caption.task import CaptionTask
from fiber_cli.tasks.coarse.task import CoarseTask
from fiber_cli.tasks.regions.task import RegionTask

DETECTION, ITC, CAPTION = "detection", "16 captions by ITC", "a caption"
#: Tokens of a generated caption, and beams.
GENERATED, BEAM = 20, 5
COMPUTE: dict[str, Callable[[Any, Any], Any]] = {
    DETECTION: lambda task, batch: task.predict(batch)[0],
    ITC: lambda task, batch: task.predict(batch),
    CAPTION: lambda task, pixels: task.caption_pixels(pixels),
}


def new_task(name: str, preset: str, words: int) -> nn.Module:
    """The task of a pass with random weights. words: of the vocabulary, for detection."""
    if name == DETECTION:
        # A threshold of 0 gives boxes to compare, of which random weights are sure of none.
        return RegionTask(fine_config(preset, words), score_threshold=0.0)
    config = PRESETS[preset]
    if name == ITC:
        return CoarseTask(config)
    return CaptionTask(config, mask_id=config.text.vocab - 1, beam=BEAM, max_length=GENERATED + 1)


def as_array(result: Any) -> np.ndarray:
    return result.float().cpu().numpy() if isinstance(result, Tensor) else result


#: Runs this file on its own, whatever package of this name there is.
START = "import runpy, sys; runpy.run_path(sys.argv[1])['answer'](sys.argv[2])"


class Earlier:
    """A process that does one pass with other code. code: the folder of its commit; file: a temporary one; the rest:
    see `new_task` and `COMPUTE`."""

    def __init__(self, code: Path, file: Path, name: str, preset: str, words: int, task: nn.Module, batch: Any):
        self.file = file
        torch.save({"pass": (name, preset, words), "weights": task.state_dict(), "batch": batch}, file)
        env = os.environ | {"PYTHONPATH": str(code), "OMP_NUM_THREADS": str(torch.get_num_threads())}
        command = [sys.executable, "-P", "-c", START, __file__, str(file)]
        self.process = subprocess.Popen(command, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def seconds(self) -> float:
        """Of one pass."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def result(self) -> np.ndarray:
        """Of the last pass; no more can follow."""
        self.process.communicate()
        return torch.load(self.file, weights_only=False)


def answer(file: str) -> None:
    """What the process does: for every line of its standard input the pass once, and its seconds of processor time as
    the answer; at the end of the input the last result goes into the file, where the weights and the batch were."""
    given = torch.load(file, weights_only=False)
    name, preset, words = given["pass"]
    task = new_task(name, preset, words).eval()
    task.load_state_dict(given["weights"])
    result = None
    for _ in sys.stdin:
        start = time.process_time()
        with torch.inference_mode():
            result = COMPUTE[name](task, given["batch"])
        print(time.process_time() - start, flush=True)
    torch.save(as_array(result), file)
