"""The paper's ablations on built-in scenes, by `fiber ablate`: their tables and pictures in benchmarks/results/.

    python -m benchmarks.ablation --nproc 2                                   # hours on two cores
    python -m benchmarks.ablation --nproc 2 --only caption --seeds 0

`pretraining` is the grid of the recipe `ablation`: where the towers are fused, merged attention or co-attention, gates,
fused layers, objectives, negatives. `caption` is that of `tiny_caption`: captions in the form of a sequence-to-sequence
model or fused, from the checkpoint that ships. The same command again goes on where it was. Settings, as
SECTION.KEY=VALUE, are put over both recipes.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

#: Name of a study → what of `fiber ablate` it is.
STUDIES = {
    "pretraining": ["ablation"],
    "caption": ["tiny_caption", "--init-from", "builtin"],
}
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", help="SECTION.KEY=VALUE, put over the recipes")
    parser.add_argument("--only", choices=STUDIES, help="one study alone")
    parser.add_argument("--seeds", help="other seeds than the grids', with commas")
    parser.add_argument("--nproc", default="1", help="processes of each run")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of all runs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of tables and pictures")
    args = parser.parse_intermixed_args()
    for name, study in STUDIES.items():
        if args.only in (None, name):
            output = args.runs / f"ablate-{name}"
            command = [sys.executable, "-m", "fiber_cli", "ablate", *study, *args.settings]
            command += ["--output", str(output), "--nproc", args.nproc]
            if args.seeds:
                command += ["--seeds", args.seeds]
            code = subprocess.run(command).returncode
            if code:
                sys.exit(code)
            args.results.mkdir(parents=True, exist_ok=True)
            for ending in ("json", "md", "png"):
                shutil.copy(output / f"comparison.{ending}", args.results / f"ablation_{name}.{ending}")


if __name__ == "__main__":
    main()
