"""The former place of `Fiber`."""

import importlib
import sys

import pytest

import fiber_cli


def test_the_former_place_still_has_what_users_took_from_it_and_says_so(monkeypatch):
    monkeypatch.delitem(sys.modules, "fiber_cli.infer", raising=False)
    with pytest.warns(DeprecationWarning, match="from fiber_cli import Fiber"):
        infer = importlib.import_module("fiber_cli.infer")
    assert infer.Fiber is fiber_cli.Fiber
    assert infer.Detection is fiber_cli.Detection
    assert infer.to_supervision is fiber_cli.to_supervision
    assert all(hasattr(infer, name) for name in infer.__all__)
