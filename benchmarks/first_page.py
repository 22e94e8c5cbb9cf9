"""The two pictures of the README, as its own commands make them.

    python -m benchmarks.first_page [--checkpoint CHECKPOINT] [--detector CHECKPOINT] [--retriever CHECKPOINT]

Draws the scenes of `fiber scenes`, finds names in two of them by `fiber detect --out`, searches all of them by
`fiber rerank --sheet`, and writes docs/images/detections.png and docs/images/search.png.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

IMAGES = Path(__file__).parents[1] / "docs" / "images"
#: Numbers of the scenes, what is asked of all of them, one name of which is in none, and what is searched for.
SCENES = (3, 35)
NAMES = "purple heart . yellow heart . blue ring . yellow star . red star . red moon . green square"
QUERY = "a yellow star"
SHOWN = 5
#: Pixels between the pictures of detections.
GAP = 8
#: Colours of a picture, which is a third as large with them.
COLOURS = 256


def fiber(*words: str | Path) -> None:
    """One command, shown and run."""
    line = ["fiber", *map(str, words)]
    print(" ".join(line), file=sys.stderr)
    subprocess.run([sys.executable, "-m", "fiber_cli", *line[1:]], check=True, stdout=subprocess.DEVNULL)


def side_by_side(pictures: list[Image.Image]) -> Image.Image:
    """Pictures of one size in a row."""
    width, height = pictures[0].size
    row = Image.new("RGB", (len(pictures) * (width + GAP) - GAP, height), "white")
    for number, picture in enumerate(pictures):
        row.paste(picture, (number * (width + GAP), 0))
    return row


def write(picture: Image.Image, name: str) -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    picture.convert("RGB").quantize(COLOURS).save(IMAGES / name, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="builtin", help="does both")
    parser.add_argument("--detector", help="another one that detects")
    parser.add_argument("--retriever", help="another one that searches")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pictures = folder / "pictures" / "images"
        fiber("scenes", "--out", pictures.parent)
        files = [pictures / f"{number:06d}.png" for number in SCENES]
        detector = arguments.detector or arguments.checkpoint
        fiber("detect", *files, NAMES, "--checkpoint", detector, "--out", folder / "found")
        write(side_by_side([Image.open(folder / "found" / file.name) for file in files]), "detections.png")
        retriever = arguments.retriever or arguments.checkpoint
        options = ("--shown", str(SHOWN), "--sheet", folder / "search.png", "--checkpoint", retriever)
        fiber("rerank", "--images", pictures, "--query", QUERY, *options)
        write(Image.open(folder / "search.png"), "search.png")


if __name__ == "__main__":
    main()
