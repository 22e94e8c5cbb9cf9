"""Every recipe of the paper for two steps on files in their published forms, with its validation and its evaluation.

    python -m benchmarks.official_forms --root DATA --json benchmarks/results/official_forms.json
    python -m benchmarks.official_forms --root DATA --only refcoco,vqav2

DATA holds all data sets of the recipes' headers, as they are published. What is run are the commands of the headers, in
an empty folder: `prepare`, `command`, `evaluate`, `all`, and those of `ALSO`. Put over them are only sizes, batches,
steps, weights and the tokeniser (`SMALLER`), one process in place of several, and where the files lie. A command that
fails is told and makes the exit code 1; the others go on.
"""

import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any, NamedTuple

from fiber_cli.cli.app import main as fiber
from fiber_cli.config.resolve import resolve_recipe
from fiber_cli.tables.commands import header_command, header_commands, placed
from fiber_cli.tables.settings import settings_for

#: In the order in which they start from one another.
RECIPES = (
    *("4m", "vqav2", "vqav2_generated", "nlvr2", "coco_itc", "coco_itm", "flickr30k_itc", "flickr30k_itm"),
    *("caption_mle", "caption_gold", "caption_cider", "fine", "fine_no_coarse", "coco_scratch", "coco_no_fuse"),
    "coco_deep_fusion",
    *("coco_detection", "lvis", "4m_clean", "fine_clean", "refcoco", "refcoco_plus", "refcocog"),
    *("odinw", "odinw_few_shot"),
)
#: Steps, batches and sizes for all; weights where a recipe begins with public backbones.
SMALLER = (
    *("optim.steps=2", "optim.epochs=null", "optim.warmup=0", "runtime.micro_batch=2", "runtime.global_batch=2"),
    *("model.preset=tiny", "model.image_size=64"),
)
NO_WEIGHTS = ("model.swin=null", "model.roberta=null")
#: Sizes of detectors, put over the recipes of such.
SMALLER_DETECTOR = ("task.channels=32", "task.blocks=1", "task.short_sides=[64]", "task.longest_side=96")
#: Recipe → what its header names in words only: files of another version or form in place of the recipe's.
ALSO = {
    "fine": (
        "fiber pretrain fine --recipe fine data.root=/data --init-from runs/4m --output runs/fine_objects365v2 "
        "data.train.2.json=objects365v2/zhiyuan_objv2_train.json data.train.2.images=objects365v2/train",
        "fiber pretrain fine --recipe fine data.root=/data --init-from runs/4m --output runs/fine_flickr_entities "
        "'data.train.1={kind: flickr_entities, folder: flickr30k_entities, "
        "images: flickr30k_entities/flickr30k-images}'",
        "fiber eval /data/mdetr/final_flickr_separateGT_val.json --images /data/flickr30k_entities/flickr30k-images "
        "--checkpoint runs/fine",
    ),
}
#: The draws of few shots that are there in miniature.
TRIED_DRAWS = ("--shots", "1,3", "--seeds", "3")
#: How rare an answer of VQA may be, where there are few questions: a size.
FEW_QUESTIONS = ("--minimum", "1")
LAST_LINES = 5


class Command(NamedTuple):
    """One command of a recipe's header. part: of which line; arguments: of `fiber`."""

    part: str
    written: str
    arguments: list[str]


def commands(name: str, root: Path, tokenizer: str) -> list[Command]:
    """What a recipe's header says is to be run, in its order, made small."""
    of_header = header_commands(name)
    also = [header_command(name, "also", written) for written in ALSO.get(name, ())]
    settings = settings_for(name, [*SMALLER, *NO_WEIGHTS, *SMALLER_DETECTOR, f"model.tokenizer={tokenizer}"])
    found = []
    for command in (*of_header, *also):
        arguments = placed(command.arguments, root, Path("runs"))
        if command.verb in ("pretrain", "finetune", "odinw"):
            arguments += settings
        if command.verb == "odinw" and name == "odinw_few_shot":
            arguments += TRIED_DRAWS
        if command.verb == "vqa-answers":
            arguments += FEW_QUESTIONS
        if command.part == "prepare":
            # The data may be read only; a file that a command makes is also found in the current folder.
            arguments += ["--output", made_file(name)]
        found.append(Command(command.part, command.written, arguments))
    return found


def made_file(name: str) -> str:
    """Where the recipe looks for what is made before it, below the data's folder or the current one."""
    task = resolve_recipe(name).task
    paths = {"vqa": "answers", "caption": "cider_df"}
    return os.path.relpath(vars(task)[paths[task.name]])


def run(command: Command, folder: Path) -> dict[str, Any]:
    """How a command ended, with the metrics that it wrote. In this process: importing torch takes longer than all else
    that is done here."""
    began = time.monotonic()
    before = result_files(folder)
    told = io.StringIO()
    exit_code: Any = 0
    with contextlib.chdir(folder), contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        try:
            fiber(command.arguments)
        except SystemExit as end:
            exit_code = end.code or 0
        except Exception:  # a traceback is what the table is to show
            exit_code = 1
            traceback.print_exc()
    row: dict[str, Any] = {
        "part": command.part,
        "written": command.written,
        "exit_code": exit_code,
        "seconds": round(time.monotonic() - began, 1),
    }
    if exit_code:
        row["error"] = told.getvalue().strip().splitlines()[-LAST_LINES:]
    else:
        row.update(written_metrics(result_files(folder), before))
    return row


def result_files(folder: Path) -> dict[Path, int]:
    """The results of evaluations, of trainings and of all of ODinW below a folder, with the time of each."""
    names = ("odinw.json", "results.json", "summary.json")
    return {file: file.stat().st_mtime_ns for name in names for file in folder.rglob(name)}


def written_metrics(files: dict[Path, int], before: dict[Path, int]) -> dict[str, Any]:
    """The metrics of the results that a command wrote; of several the outermost."""
    written = [file for file, changed in files.items() if before.get(file) != changed]
    if not written:
        return {}
    content = json.loads(min(written, key=lambda file: len(file.parts)).read_text())
    row = {name: content[name] for name in ("dataset", "split", "samples", "steps") if name in content}
    metrics = content.get("metrics", {})
    if "mean" in content:
        metrics = {f"mean of {shots}": mean["ap"] for shots, mean in content["mean"].items()}
    row["metrics"] = {name: round(value, 2) for name, value in metrics.items()}
    return row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="the folder of all data sets")
    parser.add_argument("--only", help="recipes, with commas; those that they start from must be among them")
    parser.add_argument("--tokenizer", default="builtin", help="the tokeniser of all models")
    parser.add_argument("--json", type=Path, help="write the table to this file")
    args = parser.parse_args()
    names = args.only.split(",") if args.only else RECIPES
    unknown = sorted(set(names) - set(RECIPES))
    if unknown:
        parser.error(f"--only: {', '.join(unknown)} is none of {', '.join(RECIPES)}")
    table: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            table[name] = []
            for command in commands(name, args.root.resolve(), args.tokenizer):
                row = run(command, Path(folder))
                table[name].append(row)
                outcome = row.get("error", [json.dumps(row.get("metrics", {}))])[-1]
                print(f"{name:16} {row['part']:9} {row['exit_code']} {row['seconds']:6.1f} s  {outcome}", flush=True)
    failed = [row for rows in table.values() for row in rows if row["exit_code"]]
    if args.json:
        report = {"overridden": [*SMALLER, *NO_WEIGHTS, *SMALLER_DETECTOR, "model.tokenizer"], "recipes": table}
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"{sum(map(len, table.values()))} commands, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
