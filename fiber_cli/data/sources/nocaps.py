"""NoCaps: images with ten captions each, told apart by how far they are from COCO (in-, near-, out-domain)."""

from pathlib import Path

from fiber_cli.data.files import expecting, read_json
from fiber_cli.data.images import FolderSource


class NocapsSource(FolderSource):
    """The images of a NoCaps file, with their captions where it has any (the test file has none).

    json: `images[]{id, file_name, domain (optional)}` and `annotations[]{image_id, caption}`; images: the folder in
    which the files lie. Raises `UserError` for a missing or malformed file or a missing folder.
    """

    def __init__(self, json: str | Path, images: str | Path):
        content = read_json(json, "a NoCaps JSON such as nocaps_val_4500_captions.json")
        form = '{"images": [{"id": …, "file_name": …}, …], "annotations": [{"image_id": …, "caption": …}, …]}'
        with expecting(json, "a NoCaps JSON", form):
            entries = content["images"]
            captions = {entry["id"]: [] for entry in entries}
            for annotation in content.get("annotations", ()):
                captions[annotation["image_id"]].append(annotation["caption"].strip())
            files = [entry["file_name"] for entry in entries]
            self.domains = [entry.get("domain") for entry in entries]
        self.image_ids = list(captions)
        super().__init__(Path(json).stem, images, files, list(captions.values()))
