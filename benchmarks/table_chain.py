"""Every table of the paper from nothing by one command, on files in their published forms and with a model of no use,
ended twice on the way and given again.

    python -m benchmarks.table_chain --root DATA --runs FOLDER --json benchmarks/results/table_chain.json
    python -m benchmarks.table_chain --root DATA --runs FOLDER --table 2 --end SIGKILL@coco_scratch

DATA holds all data sets of the recipes' headers, as they are published; FOLDER is new. What is run is `fiber table all
--run` with the sizes of `benchmarks.official_forms` put over all recipes (docs/tables.md). Each of `--end` ends it in
the midst of a training, once that says how its steps go and has a checkpoint to go on from; then it is given again.
What was made is compared with the plan and the tables. Whatever is wrong is told and makes the exit code 1. Linux only:
the processor time of commands whose parent was killed can be counted there.
"""

import argparse
import ctypes
import json
import os
import resource
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.official_forms import FEW_QUESTIONS, NO_WEIGHTS, SMALLER, SMALLER_DETECTOR
from fiber_cli.tables.overview import ALL
from fiber_cli.tables.paper import TABLES

#: Commands read their data in their own process: there are few samples, and starting readers takes longer.
NO_READERS = ("--workers", "0")
#: A checkpoint after every step: of two steps the last is said, the first is kept.
SAVED = "log.save_every=1"
WITH = (("vqa-answers", *FEW_QUESTIONS), ("eval", *NO_READERS), ("rerank", *NO_READERS))
#: How `fiber table` tells that a command begins, and in the end that one has failed.
BEGINS, FAILED = "table: fiber ", "table: failed: "
#: How a training says how its steps go.
STEPS = "step "
#: States of figures that can still be made.
TO_MAKE = ("to make", "in part")
PICTURE_BEGINS = b"\x89PNG"
_BECOME_REAPER = 36  # PR_SET_CHILD_SUBREAPER


class Ending(NamedTuple):
    """A signal that ends `fiber table` in the training of a run, once that says how its steps go."""

    name: str
    run: str


class Call:
    """One call of `fiber table --run`."""

    def __init__(self, words: list[str], ending: Ending | None = None):
        self.words = words
        self.ending = ending
        #: The commands, each with the moment at which it began.
        self.commands: list[tuple[str, float]] = []
        self.failed: list[str] = []
        self._is_due = False

    def run(self) -> dict[str, Any]:
        """How it ended."""
        began = time.monotonic()
        process = subprocess.Popen(self.words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        for line in process.stderr:
            self._read(line.rstrip("\n"), process)
        code = process.wait()
        row: dict[str, Any] = {"seconds": round(time.monotonic() - began), "exit_code": code}
        row["commands"] = len(self.commands)
        if self.ending is not None and self.commands:
            row["ended_by"] = self.ending.name
            row["ended_in"] = self.commands[-1][0]
        return row

    def _read(self, line: str, process: "subprocess.Popen[str]") -> None:
        print(line, flush=True)
        if line.startswith(BEGINS):
            self.commands.append((line.removeprefix("table: "), time.monotonic()))
            self._is_due = self.ending is not None and is_training_of(self.ending.run, line)
        elif self._is_due and self.ending is not None and line.startswith(STEPS):
            process.send_signal(signal.Signals[self.ending.name])
            self._is_due = False
        if line.startswith(FAILED):
            self.failed.append(line)


def is_training_of(run: str, line: str) -> bool:
    """Whether a command makes this run."""
    words = shlex.split(line)
    return "--output" in words and Path(words[words.index("--output") + 1]).name == run


def table_words(args: argparse.Namespace, *more: str) -> list[str]:
    """`fiber table` on these data and runs."""
    words = [sys.executable, "-m", "fiber_cli", "table", args.table]
    words += ["--data", str(args.root), "--runs", str(args.runs), *more]
    for setting in (*SMALLER, *NO_WEIGHTS, *SMALLER_DETECTOR, SAVED, "model.tokenizer=builtin", "data.workers=0"):
        words += ["--set", setting]
    return words


def run_words(args: argparse.Namespace) -> list[str]:
    """That makes what is missing."""
    words = table_words(args, "--run", "--nproc", str(args.nproc))
    for command in WITH:
        words += ["--with", shlex.join(command)]
    return words


def printed(words: list[str]) -> Any:
    """What a command prints as JSON."""
    return json.loads(subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout)


def needs_in(plan: list[dict[str, Any]], *states: str) -> list[str]:
    """The figures that the plan says are in one of these states, and what is missing for them."""
    found = []
    for table in plan:
        for row in table["rows"]:
            for need in row["needs"]:
                if need["state"] in states:
                    columns = ", ".join(need["columns"])
                    lacking = "; ".join(need["missing"])
                    found.append(
                        f"{table['table']}, {row['row'].strip()}, {columns}: {need['state']} {lacking}".strip()
                    )
    return found


def figures(tables: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Of each table how many figures there are, of these of a part of the data, to be sent, and missing."""
    counted = {}
    for table in tables:
        counts = dict.fromkeys(("there", "of these in part", "to send", "missing"), 0)
        for row in table["rows"]:
            for figure in row["figures"]:
                counts[state(figure)] += 1
                counts["of these in part"] += figure["partial"] is not None
        counted[table["table"]] = counts
    return counted


def state(figure: dict[str, Any]) -> str:
    """Of a figure of ours."""
    if figure["ours"] is not None:
        return "there"
    is_sent = figure["server"] is not None and figure["file"] is not None
    return "to send" if is_sent else "missing"


def noted(tables: list[dict[str, Any]]) -> list[str]:
    """Where there is no figure though something was measured, and what the table says of that."""
    found = []
    for table in tables:
        for row in table["rows"]:
            for figure in row["figures"]:
                if state(figure) == "missing" and figure["note"] is not None:
                    found.append(f"{table['table']}, {row['row'].strip()}, {figure['column']}: {figure['note']}")
    return found


def form_problems(args: argparse.Namespace, tables: list[dict[str, Any]]) -> list[str]:
    """What is wrong with the files of `--output`: each table as text, Markdown and JSON, and Figure 5 as a picture."""
    problems = []
    with tempfile.TemporaryDirectory() as folder:
        words = [*table_words(args), "--output", folder, "--markdown"]
        subprocess.run(words, stdout=subprocess.DEVNULL, check=True)
        for table in tables:
            stem = Path(folder, "figure5" if table["table"] == "fig5" else f"table{table['table']}")
            if json.loads(stem.with_suffix(".json").read_text()) != table:
                problems.append(f"{stem.name}.json differs from what --json prints")
            for suffix in (".txt", ".md"):
                text = stem.with_suffix(suffix).read_text()
                for row in table["rows"]:
                    if row["row"].strip() not in text:
                        problems.append(f"{stem.name}{suffix} has no row {row['row']}")
            if table["table"] == "fig5" and not stem.with_suffix(".png").read_bytes().startswith(PICTURE_BEGINS):
                problems.append(f"{stem.name}.png is no PNG")
    return problems


def processor_seconds() -> float:
    """Of all processes that have ended, those too whose parents were killed: these become children of this one."""
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                break
        except ChildProcessError:
            break
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def seconds_by_verb(calls: list[Call], ends: list[float]) -> dict[str, Any]:
    """How many commands of each kind there were, and the seconds until the next began."""
    counted: dict[str, list[float]] = {}
    for call, end in zip(calls, ends, strict=True):
        moments = [moment for _, moment in call.commands] + [end]
        for (command, began), ended in zip(call.commands, moments[1:], strict=True):
            counted.setdefault(command.split()[1], []).append(ended - began)
    return {verb: {"commands": len(all_), "seconds": round(sum(all_))} for verb, all_ in counted.items()}


def repetitions(calls: list[Call]) -> list[str]:
    """Commands that had come to their end and were run again."""
    ended: set[str] = set()
    found = []
    for call in calls:
        commands = [command for command, _ in call.commands]
        for command in commands:
            if command.replace(" --resume", "") in ended:
                found.append(f"made a second time: {command}")
        whole = commands if call.ending is None else commands[:-1]
        ended.update(command.replace(" --resume", "") for command in whole)
    return found


def restarts(calls: list[Call]) -> list[str]:
    """Trainings that were ended and began again, where they had a checkpoint to go on from."""
    found = []
    for ended, call in pairwise(calls):
        if ended.ending is None or not call.commands:
            continue
        command = call.commands[0][0]
        if is_training_of(ended.ending.run, command) and "--resume" not in shlex.split(command):
            found.append(f"begun again, not gone on with: {command}")
    return found


def ending(text: str) -> Ending:
    """The value of `--end`."""
    name, _, run = text.partition("@")
    return Ending(signal.Signals[name].name, run)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="the folder of all data sets")
    parser.add_argument("--runs", type=Path, required=True, help="the folder of the runs, new")
    parser.add_argument("--table", default=ALL, choices=[*TABLES, ALL], help="another table than all")
    parser.add_argument("--nproc", type=int, default=1, help="processes of every training and evaluation")
    parser.add_argument(
        "--end",
        type=ending,
        action="append",
        metavar="SIGNAL@RUN",
        help="end it by this signal in the training of this run; several in their order  "
        "[default: SIGKILL@caption_mle and SIGINT@fine_no_coarse]",
    )
    parser.add_argument("--json", type=Path, help="write what was seen to this file")
    args = parser.parse_args()
    if args.runs.exists():
        parser.error(f"--runs {args.runs}: is there already; the whole chain begins in a new folder")
    ctypes.CDLL(None).prctl(_BECOME_REAPER, 1)
    # What was ignored here would be ignored by the program too, as in the background of some shells.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    args.root, args.runs = args.root.resolve(), args.runs.resolve()
    endings = args.end or [Ending("SIGKILL", "caption_mle"), Ending("SIGINT", "fine_no_coarse")]
    report = chain(args, endings)
    if args.json:
        args.json.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    summary = {name: report[name] for name in ("wall_seconds", "processor_seconds", "problems")}
    print(json.dumps(summary, indent=1, ensure_ascii=False))
    return 1 if report["problems"] else 0


def chain(args: argparse.Namespace, endings: list[Ending]) -> dict[str, Any]:
    """The whole of it, in words and numbers."""
    words = run_words(args)
    began = time.monotonic()
    calls: list[Call] = []
    rows: list[dict[str, Any]] = []
    ends: list[float] = []
    for each in (*endings, None):
        calls.append(Call(words, each))
        rows.append(calls[-1].run())
        ends.append(time.monotonic())
    used = processor_seconds()
    problems = list(calls[-1].failed)
    if rows[-1]["exit_code"]:
        problems.append(f"the last call ended with exit code {rows[-1]['exit_code']}")
    for row in rows[:-1]:
        if not row["commands"]:
            problems.append(f"a call ended with exit code {row['exit_code']} before its first command")
        elif row["exit_code"] == 0:
            problems.append(f"a call came to its end before {row['ended_by']}")
    problems += restarts(calls)
    calls.append(Call(words))
    calls[-1].run()
    problems += repetitions(calls)
    tables = printed([*table_words(args), "--json"])
    plan = printed([*table_words(args), "--plan", "--json"])
    problems += needs_in(plan, *TO_MAKE)
    problems += form_problems(args, tables)
    return {
        "command": in_words(f"fiber {shlex.join(words[3:])}", args),
        "processors": len(os.sched_getaffinity(0)),
        "wall_seconds": round(ends[-1] - began),
        "processor_seconds": round(used),
        "calls": [without_settings(row, args) for row in rows],
        "commands": seconds_by_verb(calls[:-1], ends),
        "figures": figures(tables),
        "missing": [in_words(line, args) for line in [*noted(tables), *needs_in(plan, "missing")]],
        "problems": problems,
    }


def without_settings(row: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """A call's row, without the many settings of the command that it ended in."""
    if "ended_in" in row:
        words = [word for word in shlex.split(row["ended_in"]) if "=" not in word]
        row["ended_in"] = in_words(shlex.join(words), args)
    return row


def in_words(text: str, args: argparse.Namespace) -> str:
    """Without where things lay here."""
    return text.replace(str(args.root), "DATA").replace(str(args.runs), "FOLDER")


if __name__ == "__main__":
    sys.exit(main())
