"""The files that outputs must not replace."""

from label_folders import write_flat_voc, write_voc, write_yolo

from fiber_cli.config.resolve import resolve_source
from fiber_cli.data.source_files import source_files


def files_of(entry, folder):
    settings = resolve_source(entry, str(folder))
    return {path.relative_to(folder).as_posix() for path in source_files([settings])}


def test_results_inside_a_folder_of_labels_may_be_replaced(tmp_path):
    """A run that lies in the folder with its data is none of them."""
    folder = write_yolo(tmp_path)
    (folder / "runs").mkdir()
    (folder / "runs" / "results.json").write_text("{}")
    assert files_of("{kind: folder, split: train}", folder) == {"data.yaml"}


def test_the_labels_themselves_may_not(tmp_path):
    assert files_of("{kind: voc, folder: ., split: val}", write_voc(tmp_path / "voc")) == {
        f"Annotations/{name}.xml" for name in "abcde"
    }
    assert files_of("{kind: folder, split: val}", write_flat_voc(tmp_path / "flat")) == {"valid/d.xml", "valid/e.xml"}
