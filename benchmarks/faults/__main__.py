"""See the package's own words."""

import argparse
import sys
import tempfile
from pathlib import Path

import benchmarks.faults
from benchmarks.faults.campaign import Campaign
from benchmarks.faults.kinds import PARTS


def main() -> int:
    parser = argparse.ArgumentParser(
        description=benchmarks.faults.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    parser.add_argument(
        "--trials", type=int, default=10, help="interrupted runs of each kind, flipped bits of each file"
    )
    parser.add_argument("--match", default="", help="only trials whose words contain this pattern")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    args = parser.parse_args()
    parts = args.only.split(",")
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        parser.error(f"--only: {', '.join(unknown)} is none of {', '.join(PARTS)}")
    campaign = Campaign(args.seed, args.trials)
    with tempfile.TemporaryDirectory() as folder:
        for trial in campaign.run(Path(folder), parts, args.match):
            print(trial.line(), flush=True)
    if args.json:
        args.json.write_text(campaign.report(), encoding="utf-8")
    failed = [trial for trial in campaign.trials if trial.problem]
    print(f"{len(campaign.trials)} trials, {len(failed)} failed; full disks: {campaign.full_disk}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
