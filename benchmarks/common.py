"""What the benchmarks of networks share: options, the clock, and what is written down."""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from fiber_cli.distributed.device import in_words
from fiber_cli.model.config import PRESETS


def options(doc: str) -> argparse.ArgumentParser:
    """The parser with the options of all, described by the benchmark's own words."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="base")
    parser.add_argument("--json", help="write the figures to this file")
    return parser


def image_options(doc: str) -> argparse.ArgumentParser:
    """Also those of the detector's benchmarks."""
    parser = options(doc)
    parser.add_argument("--short", type=int, default=800, help="height of an image")
    parser.add_argument("--longest", type=int, default=1333, help="width of an image")
    parser.add_argument("--threads", type=int, help="CPU threads, default as PyTorch decides")
    return parser


def pick_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def hardware(device: torch.device) -> str:
    """Its name, or the processor's."""
    return in_words(device)["hardware"]


def timed(call: Callable[[], Any], device: torch.device, *, of_process: bool = False) -> tuple[float, Any]:
    """Seconds of a call, and what it returns. of_process: those that this process computed, whatever else the machine
    does."""
    clock = time.process_time if of_process else time.perf_counter
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = clock()
    result = call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - start, result


@torch.no_grad()
def open_gates(task: nn.Module) -> None:
    """Gates start at 0, where fusion would change nothing."""
    for name, parameter in task.named_parameters():
        if name.endswith(".alpha"):
            parameter.fill_(0.5)


def write(report: dict[str, Any], file: str | None) -> None:
    """The figures as JSON, where a file is named."""
    if file:
        with open(file, "w") as out:
            json.dump(report, out, indent=2)
