"""The paper's ablations on built-in scenes, by `fiber ablate`: their tables and pictures in benchmarks/results/.

    python -m benchmarks.ablation                                    # ten minutes of one core for each seed
    python -m benchmarks.ablation --seeds 0 --only caption

`pretraining` is the grid of the recipe `ablation`: where the towers are fused, merged attention or co-attention, gates,
fused layers, objectives, negatives. `caption` is that of `tiny_caption`, in fewer steps with a smaller batch: captions
in the form of a sequence-to-sequence model or fused. Both begin with checkpoints that ship. The same command again goes
on where it was. Settings, as SECTION.KEY=VALUE, are put over both recipes.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.builtin import commit

#: What makes the captions' study as short as the other one.
SHORTER = [
    "optim.steps=40",
    "runtime.micro_batch=32",
    "runtime.global_batch=32",
    "log.validate_every=40",
    "log.save_every=40",
    "data.workers=0",
    "data.val=[{kind: scenes, split: val, count: 60}]",
]
#: Name of a study → what of `fiber ablate` it is.
STUDIES = {
    "pretraining": ["ablation"],
    "caption": ["tiny_caption", "--init-from", "builtin", *SHORTER],
}
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", help="SECTION.KEY=VALUE, put over the recipes")
    parser.add_argument("--only", choices=STUDIES, help="one study alone")
    parser.add_argument(
        "--variant", action="append", default=[], help="train this alone now; several times; the comparison has all"
    )
    parser.add_argument("--seeds", help="other seeds than the grids', with commas")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of all runs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of tables and pictures")
    args = parser.parse_intermixed_args()
    for name, study in STUDIES.items():
        if args.only not in (None, name):
            continue
        output = args.runs / f"ablate-{name}"
        seeds = ["--seeds", args.seeds] if args.seeds else []
        command = ["ablate", *study, *args.settings, "--output", str(output), *seeds]
        selected = []
        for variant in args.variant:
            selected += ["--only", variant]
        if unfinished([*command, *selected]):
            note_commit(output)
        fiber([*command, *selected])
        made_by = shlex.join(["--only", name, *args.settings, *seeds])
        publish(output, args.results / f"ablation_{name}", f"python -m benchmarks.ablation {made_by}")


def fiber(arguments: Sequence[str]) -> None:
    """A command of the program; ends with its exit code where it fails."""
    code = subprocess.run([sys.executable, "-m", "fiber_cli", *arguments]).returncode
    if code:
        sys.exit(code)


def unfinished(command: Sequence[str]) -> bool:
    """Whether something is left to train or to measure."""
    plan = subprocess.run([sys.executable, "-m", "fiber_cli", *command, "--dry-run"], stdout=subprocess.PIPE, text=True)
    if plan.returncode:
        sys.exit(plan.returncode)
    return any(not line.startswith("finished\t") for line in plan.stdout.splitlines())


def note_commit(output: Path) -> None:
    """Keep beside the runs of which commits they are, the earliest first."""
    file = output / "commits.json"
    earlier = json.loads(file.read_text()) if file.is_file() else []
    output.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(list(dict.fromkeys([*earlier, commit()]))))


def publish(output: Path, target: Path, command: str) -> None:
    """The comparison of a study as results: its table, its picture, and all figures with where they come from."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for ending in ("md", "png"):
        shutil.copy(output / f"comparison.{ending}", target.with_suffix(f".{ending}"))
    source = {
        "command": command,
        "commits": json.loads((output / "commits.json").read_text()),
        "hardware": f"1 of {os.cpu_count()} CPU cores",
    }
    comparison = json.loads((output / "comparison.json").read_text())
    target.with_suffix(".json").write_text(json.dumps(source | comparison, indent=2) + "\n")


if __name__ == "__main__":
    main()
