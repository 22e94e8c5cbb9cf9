"""See the package's own words."""

import argparse
import re
import sys
import tempfile
from pathlib import Path

import benchmarks.faults
from benchmarks.faults.bench import bench
from benchmarks.faults.campaign import all_cases, report
from benchmarks.faults.kinds import PARTS, Trial


def main() -> int:
    parser = argparse.ArgumentParser(
        description=benchmarks.faults.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    parser.add_argument("--trials", type=int, default=10, help="interrupted runs of each kind, flipped bits of each file")
    parser.add_argument("--match", default="", help="only trials whose words contain this pattern")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    args = parser.parse_args()
    parts = args.only.split(",")
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        parser.error(f"--only: {', '.join(unknown)} is none of {', '.join(PARTS)}")
    trials: list[Trial] = []
    with tempfile.TemporaryDirectory() as folder, bench(Path(folder), args.seed) as made:
        for case in all_cases(made, parts, args.trials):
            if re.search(args.match, case.instance):
                trials.append(case.trial(made))
                print(trials[-1].line(), flush=True)
    failed = [trial for trial in trials if trial.problem]
    if args.json:
        args.json.write_text(report(trials, args.seed, args.trials), encoding="utf-8")
    print(f"{len(trials)} trials, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
