"""A screen for browsers that need one, on a machine that has none."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local_stack.places import bare_environment
from local_stack.processes import Child


@contextmanager
def open_screen(home: Path) -> Iterator[str]:
    """The display's name; the screen goes dark with the block."""
    reader, writer = os.pipe()
    screen = Child(
        "Xvfb",
        [str(shutil.which("Xvfb")), "-displayfd", str(writer), "-screen", "0", "1400x1000x24", "-nolisten", "tcp"],
        log=home / "screen.log",
        environment=bare_environment(HOME=str(home)),
        pass_fds=[writer],
    )
    try:
        os.close(writer)
        with os.fdopen(reader) as numbers:
            yield f":{numbers.readline().strip()}"
    finally:
        screen.stop()
