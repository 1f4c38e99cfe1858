"""A process that archives, and is killed before the next step that none was killed at so far."""

import os
import signal
from multiprocessing.connection import Connection as Pipe

import duckdb  # noqa: F401 - loaded once for all victims
import psycopg

from widget_analytics._archive.move import archive_month
from widget_analytics._archive.place import Place


def archive_and_die(url: str, place: str, seen: list[str], news: Pipe) -> None:
    """Archive in small parts; say each step that is new, and be killed at it."""
    taken: list[str] = []

    def on_step(step: str) -> None:
        name = f"{step}, {taken.count(step) + 1}"
        taken.append(step)
        if name not in seen:
            news.send(name)
            os.kill(os.getpid(), signal.SIGKILL)

    with psycopg.connect(url, autocommit=True) as connection:
        archive_month(connection, Place(place), "2026-01", on_step=on_step, events_in_file=200)
