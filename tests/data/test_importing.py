"""What reading a recipe loads."""

import subprocess
import sys

PROGRAM = """
import sys
from fiber_cli.data.sources import FORMATS, source_format

for kind in FORMATS:
    assert source_format(kind).kind == kind
print([name for name in ("torch", "transformers") if name in sys.modules])
"""


def test_settings_and_readers_of_all_formats_load_without_torch():
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"
