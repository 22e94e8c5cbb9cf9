"""Visual Genome: region descriptions as captions of the whole image."""

from pathlib import Path

from fiber_cli.data.files import expecting, read_json
from fiber_cli.data.images import FolderSource
from fiber_cli.data.sources.karpathy import read_karpathy
from fiber_cli.errors import UserError


class VisualGenomeSource(FolderSource):
    """All images of `region_descriptions.json`; the captions of an image are the phrases of its regions.

    images: the folder that holds `VG_100K` and `VG_100K_2`. Half of the images are COCO's: `exclude`, a
    Karpathy JSON of COCO, leaves out those outside its train split, told by `image_data`, Visual Genome's
    `image_data.json`; `excluded` counts them. Raises `UserError` for missing or malformed files.
    """

    def __init__(
        self,
        regions: str | Path,
        images: str | Path,
        image_data: str | Path | None = None,
        exclude: str | Path | None = None,
    ):
        if (image_data is None) != (exclude is None):
            raise UserError("visual_genome: image_data and exclude work only together; give both or neither")
        held_out = _held_out(image_data, exclude) if exclude else set()
        second = {path.stem for path in Path(images, "VG_100K_2").glob("*.jpg")}
        # A region becomes its phrase as soon as it is parsed: 5.4 million dicts would take gigabytes.
        entries = read_json(regions, "region_descriptions.json", lambda item: item.get("phrase", item))
        files, rows = [], []
        form = '[{"id": …, "regions": [{"phrase": …}, …]}, …]'
        with expecting(regions, "Visual Genome's region descriptions", form):
            for entry in entries:
                if entry["id"] not in held_out:
                    rows.append([text for phrase in entry["regions"] if (text := phrase.strip())])
                    folder = "VG_100K_2" if str(entry["id"]) in second else "VG_100K"
                    files.append(f"{folder}/{entry['id']}.jpg")
        self.excluded = len(entries) - len(files)
        if not files:
            raise UserError(f"{regions}: no image is left, {self.excluded} are excluded; check both files")
        super().__init__("visual_genome", images, files, rows)


def _held_out(image_data: str | Path, exclude: str | Path) -> set[int]:
    """Visual Genome's ids of the images that are outside the train split of the Karpathy JSON."""
    coco = {entry["cocoid"] for entry in read_karpathy(exclude) if entry["split"] != "train"} - {None}
    images = read_json(image_data, "Visual Genome's image_data.json")
    with expecting(image_data, "Visual Genome's image_data.json"):
        held_out = {image["image_id"] for image in images if image["coco_id"] in coco}
    if not held_out:
        raise UserError(f"{exclude}: outside train no `cocoid` is in {image_data}; give dataset_coco.json")
    return held_out
