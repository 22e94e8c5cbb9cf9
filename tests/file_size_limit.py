"""A limit of the system on how large files can grow, which stands for a full disk."""

from contextlib import contextmanager

import pytest


@contextmanager
def files_up_to(size):
    """No file of this process grows past `size` bytes inside; pytest's own output among them, so that nothing of it is
    written here."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
