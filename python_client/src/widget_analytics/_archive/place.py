"""Where an archive is: a folder, or whatever store fsspec knows by a URL."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from widget_analytics._atomic import atomic_file
from widget_analytics.errors import InputError, MissingExtra, OutputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator


class Place:
    """The root of an archive.

    Attributes:
        url: the one way of writing it, such as ``file:///srv/archive`` or ``s3://bucket/archive``.
    """

    def __init__(self, url: str) -> None:
        """Find the store.

        Raises:
            UsageError: there is no such kind of store.
            MissingExtra: it needs a package that is not installed.
        """
        try:
            import fsspec  # noqa: PLC0415 (an extra)
            from fsspec.implementations.local import LocalFileSystem  # noqa: PLC0415
        except ImportError:
            raise MissingExtra("an archive", "fsspec", "archive") from None
        try:
            self._files, self._root = fsspec.core.url_to_fs(url)
        except ImportError as error:
            if url.startswith("s3:"):
                raise MissingExtra("s3://", "s3fs", "s3") from None
            raise UsageError(f"the archive's place, {url}, needs a package: {error}") from None
        except ValueError as error:
            raise UsageError(
                f"the archive's place must be a folder or a URL such as s3://bucket/folder: {error}"
            ) from None
        self._is_local = isinstance(self._files, LocalFileSystem)
        self.url: str = self._files.unstrip_protocol(self._root)

    @property
    def remote_files(self) -> Any:
        """The fsspec file system; None where files are simply on this machine."""
        return None if self._is_local else self._files

    def path(self, name: str) -> str:
        """Give a file's path on this machine, else its URL."""
        return f"{self._root}/{name}" if self._is_local else f"{self.url}/{name}"

    def folders(self, name: str) -> list[str]:
        """Name what is in a folder; nothing where there is none."""
        with self._errors(InputError, "read", name):
            self._files.invalidate_cache()
            folder = f"{self._root}/{name}"
            found = self._files.ls(folder, detail=False) if self._files.exists(folder) else []
            return [str(path).rstrip("/").rsplit("/", 1)[-1] for path in found]

    def put(self, file: Path, name: str) -> None:
        """Store a file, whole or not at all.

        Raises:
            OutputError: it cannot be stored.
        """
        with self._errors(OutputError, "write", name):
            if self._is_local:
                target = Path(self._root, name)
                target.parent.mkdir(parents=True, exist_ok=True)
                with file.open("rb") as content, atomic_file(target) as out:
                    shutil.copyfileobj(content, out, 1 << 20)
            else:
                # An object appears when all of it has arrived.
                self._files.put_file(str(file), f"{self._root}/{name}")

    @contextmanager
    def stored(self, name: str) -> Iterator[Path]:
        """Lend a file as it is in the store: itself, or a copy of now.

        Raises:
            InputError: it cannot be read.
        """
        if self._is_local:
            yield Path(self._root, name)
            return
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder, "stored")
            with self._errors(InputError, "read", name):
                self._files.invalidate_cache()
                self._files.get_file(f"{self._root}/{name}", str(copy))
            yield copy

    @contextmanager
    def _errors(self, kind: type[InputError | OutputError], verb: str, name: str) -> Iterator[None]:
        try:
            yield
        except (InputError, OutputError):
            raise
        except Exception as error:  # each store has errors of its own
            reason = getattr(error, "strerror", None) or error
            raise kind(f"cannot {verb} {self.path(name)}: {' '.join(str(reason).split())}") from error
