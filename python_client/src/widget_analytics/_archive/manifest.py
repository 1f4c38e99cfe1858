"""What an archived month's files hold, so that anyone can check them years later."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Self

from widget_analytics._exit import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from widget_analytics._archive.place import Place

_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """A file by its name below the archive's root."""

    name: str
    bytes: int
    sha256: str
    rows: int

    @classmethod
    def of(cls, name: str, file: Path, rows: int) -> Self:
        """Read a file from its start to its end."""
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
            return cls(name=name, bytes=content.tell(), sha256=digest, rows=rows)


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Sessions that left the ledger together; those of chunk 0 were copied only."""

    chunk: int
    events: int
    digest_sum: str


@dataclass(frozen=True, kw_only=True)
class ArchivedMonth:
    """A month in the archive.

    Attributes:
        month: such as ``2026-01``, in ``time_zone``.
        max_call_seconds: no call of it is longer.
    """

    month: str
    period_start: str
    period_end: str
    time_zone: str
    as_of: str
    max_call_seconds: int
    files: tuple[StoredFile, ...]
    plans: StoredFile
    chunks: tuple[Chunk, ...]

    @property
    def events(self) -> int:
        """How many events the files hold."""
        return sum(file.rows for file in self.files)

    def to_bytes(self) -> bytes:
        """Write it down, always the same."""
        return json.dumps({"widget_analytics_archive": _VERSION} | asdict(self), indent=1).encode() + b"\n"

    @classmethod
    def read(cls, place: Place, month: str, *, sha256: str | None = None) -> Self:
        """Read the manifest of a month, if it has that hash.

        Raises:
            InputError: it is not there, or another.
        """
        name = manifest_name(month)
        try:
            with place.stored(name) as file:
                text = file.read_bytes()
            if sha256 is not None and hashlib.sha256(text).hexdigest() != sha256:
                raise InputError(
                    f"{place.path(name)} is not the manifest that was confirmed: its SHA-256 is not {sha256}"
                )
            content = json.loads(text)
            if content.pop("widget_analytics_archive") != _VERSION:
                raise InputError(f"{place.path(name)} is of another version than this program")
            return cls(
                **content
                | {
                    "files": tuple(StoredFile(**file) for file in content["files"]),
                    "plans": StoredFile(**content["plans"]),
                    "chunks": tuple(Chunk(**chunk) for chunk in content["chunks"]),
                }
            )
        except OSError as error:
            raise InputError(f"{place.url} has no archive of {month}: {error.strerror or error}") from error
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{place.path(name)} is no manifest of an archive ({error})") from error


def manifest_name(month: str) -> str:
    """Give where a month's manifest is, below the archive's root."""
    return f"manifests/{month}.json"
