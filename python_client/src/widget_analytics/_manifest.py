"""The manifest beside an exported file: what the file is, so that anyone can check it years later."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from widget_analytics._atomic import atomic_file
from widget_analytics._formats import FORMATS
from widget_analytics._selection import Selection
from widget_analytics.errors import InputError

_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """A file's format, length and SHA-256."""

    format: str
    bytes: int
    sha256: str

    @classmethod
    def of(cls, file_format: str, file: io.BufferedReader) -> Self:
        """Read an open file from its start to its end."""
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return cls(format=file_format, bytes=file.tell(), sha256=digest)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a manifest says.

    Attributes:
        totals: as `Totals.to_json` gives them.
        statement: the closed month's content hash; None for calls and usage.
        project: the host that the rows came from.
    """

    file: FileFacts
    selection: Selection
    totals: dict[str, Any]
    statement: str | None
    created_at: str
    project: str

    def write(self, path: Path) -> None:
        """Put it in its place, whole or not at all."""
        content = {
            "widget_analytics_manifest": _VERSION,
            "file": vars(self.file),
            "export": self.selection.to_json() | {"statement_content_hash": self.statement},
            "totals": self.totals,
            "created_at": self.created_at,
            "project": self.project,
            "client_version": version("widget-analytics"),
        }
        with atomic_file(path) as out:
            out.write(json.dumps(content, indent=2).encode() + b"\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `write` wrote.

        Raises:
            InputError: it is not there, or something else.
        """
        try:
            content = json.loads(path.read_bytes())
            found = content["widget_analytics_manifest"]
            if found != _VERSION:
                raise InputError(f"{path} is of version {found}, this program knows version {_VERSION}")
            if content["file"]["format"] not in FORMATS:
                raise ValueError(f"unknown format {content['file']['format']}")
            return cls(
                file=FileFacts(**content["file"]),
                selection=Selection.from_json(content["export"]),
                totals=dict(content["totals"]),
                statement=content["export"]["statement_content_hash"],
                created_at=content["created_at"],
                project=content["project"],
            )
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror or error}") from error
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} is no manifest of an export ({error})") from error


def manifest_path(exported: Path) -> Path:
    """Give where a file's manifest is: beside it, under its name and ``.manifest.json``."""
    return exported.with_name(f"{exported.name}.manifest.json")
