"""The command ``restore``: sessions come back from the archive, with what came late for them."""

from __future__ import annotations

import json
from datetime import UTC
from typing import TYPE_CHECKING, Any

from widget_analytics._archive.manifest import ArchivedMonth
from widget_analytics._archive.move import alone, row_of
from widget_analytics._archive.place import Place
from widget_analytics._exit import InputError, MissingExtra

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    import psycopg

    Connection = psycopg.Connection[Any]

_COLUMNS = (
    *("id", "widget_id", "event_type", "session_id", "page_url", "user_agent", "timestamp", "call_id", "seq", "source"),
    *("received_at", "properties"),
)


def restore_sessions(
    connection: Connection, sessions: list[tuple[UUID, str]] | None = None
) -> Iterator[tuple[UUID, str, int]]:
    """Bring sessions back into the ledger; without a list, those that late events wait for.

    Yields each session with how many events came back: 0 for one that is not in the archive.

    Raises:
        InputError: the archive cannot be read, or does not hold the session.
    """
    with alone(connection):
        for widget_id, session_id in _waiting(connection) if sessions is None else sessions:
            found = connection.execute(
                "select to_char(a.month, 'YYYY-MM'), a.place, a.manifest_hash"
                " from widget_internal.archived_sessions s join public.widget_archives a using (month)"
                " where s.session_key = widget_internal.archived_session_key(%s, %s)",
                [widget_id, session_id],
            ).fetchone()
            events = [] if found is None else _events(Place(found[1]), found[0], found[2], widget_id, session_id)
            if found is not None and not events:
                raise InputError(f"the archive of {found[0]} at {found[1]} does not hold the session {session_id!r}")
            (restored,) = row_of(
                connection,
                "select widget_internal.restore_archived_session(%s, %s, %s::jsonb)",
                [widget_id, session_id, f"[{','.join(events)}]"],
            )
            yield widget_id, session_id, restored
        connection.execute("select widget_internal.return_late_events()")


def _waiting(connection: Connection) -> list[tuple[UUID, str]]:
    return connection.execute(
        "select distinct widget_id, session_id from public.widget_late_events order by widget_id, session_id"
    ).fetchall()


def _events(place: Place, month: str, manifest_hash: str, widget_id: UUID, session_id: str) -> list[str]:
    try:
        import pyarrow.dataset as ds  # noqa: PLC0415 (an extra)
    except ImportError:
        raise MissingExtra("an archive", "pyarrow", "archive") from None
    manifest = ArchivedMonth.read(place, month, sha256=manifest_hash)
    is_wanted = (
        (ds.field("widget_id") == str(widget_id)) & (ds.field("session_id") == session_id) & (ds.field("chunk") > 0)
    )
    events: list[str] = []
    for file in manifest.files:
        with place.stored(file.name) as stored:
            rows = ds.dataset(stored, format="parquet").to_table(columns=list(_COLUMNS), filter=is_wanted)
        events += [_as_json(row) for row in rows.to_pylist()]
    return events


def _as_json(row: dict[str, Any]) -> str:
    moments = {name: row[name].astimezone(UTC).isoformat() for name in ("timestamp", "received_at")}
    # The properties go as they are: a number that passed through a float here might come out as another.
    properties = row["properties"] or "null"
    return json.dumps(row | moments | {"properties": None})[:-1] + f', "properties": {properties}}}'
