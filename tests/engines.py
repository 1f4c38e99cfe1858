"""Which browser tests run in which engine."""

import os

import pytest

from local_stack.browsers import ENGINES, is_installed

CHOSEN = tuple(filter(None, os.environ.get("TEST_ENGINES", "").split(",")))
"""What scripts/test-browsers asks for: every browser test in each of these."""


def parametrize_engine(metafunc: pytest.Metafunc) -> None:
    """Chromium for all; the others for the tests marked `every_engine`, which are the short part of it."""
    if "engine" not in metafunc.fixturenames:
        return
    marked = metafunc.definition.get_closest_marker("every_engine") is not None
    engines = CHOSEN or (ENGINES if marked else ENGINES[:1])
    if not CHOSEN:
        # Set-up installs them where the distribution has them: Ubuntu has no Firefox but as a snap.
        engines = tuple(engine for engine in engines if is_installed(engine))
    metafunc.parametrize("engine", engines, scope="module")
