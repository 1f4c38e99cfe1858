"""Sends made-up requests, and says what of an answer no sender may ever get."""

import itertools
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from select import select
from typing import Any, Self
from urllib.parse import unquote_to_bytes, urlsplit

import psycopg
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as with_seed

from tests.fuzz.inputs import FIELDS, Bundle, Request, Widgets, at_the_limits, bundles

# Refusals in words of our own: each begins with the field to mend.
OURS = {"22023": 400, "42501": 403, "54000": 413}
# Refused before our functions run: what cannot be cast to a parameter's type, and what is no call of them.
# The local gateway answers 42846 and 42883 to values of another JSON type, and PGRST100 to a key that is no name.
BEFORE_US = {"22P02", "22P05", "22003", "22021", "42846", "42883", "PGRST100", "PGRST102", "PGRST202"}
_NAMED = {f"{field}:" for field in (*FIELDS, "events", "event")}

# How PostgREST calls a function with a JSON body.
_AS_POSTGREST = {
    "track_event": """
        select public.track_event(
          widget_id => a.widget_id, event_type => a.event_type, session_id => a.session_id, page_url => a.page_url,
          event_id => a.event_id, call_id => a.call_id, seq => a.seq, age_ms => a.age_ms, properties => a.properties
        )
        from json_to_record(%s::json) a (
          widget_id uuid, event_type text, session_id text, page_url text, event_id uuid, call_id text, seq integer,
          age_ms bigint, properties jsonb
        )""",
    "track_events": "select public.track_events(events => a.events) from json_to_record(%s::json) a (events jsonb)",
}


def _is_utf8(request: Request) -> bool:
    """Whether PostgREST can read the headers, and the body where it is a form."""
    texts = [value.encode("latin-1") for _, value in request.headers]
    if request.content_type == "application/x-www-form-urlencoded":
        texts.append(unquote_to_bytes(request.body))
    try:
        b" ".join(texts).decode()
    except UnicodeDecodeError:
        return False
    return True


@dataclass(frozen=True)
class Target:
    """Where to send to, as a page whose host every open widget allows."""

    api_url: str
    key: str
    database_url: str
    """As PostgREST logs in."""
    widgets: Widgets


class Sender:
    def __init__(self, target: Target) -> None:
        self._target = target
        address = urlsplit(target.api_url)
        self._http = HTTPConnection(str(address.hostname), address.port, timeout=60)
        self._database = psycopg.connect(target.database_url, autocommit=True)
        headers = json.dumps({"origin": "https://shop.example"})
        self._database.execute("select set_config('request.headers', %s, false)", [headers])
        self._database.execute("set role anon")
        #: What the answers were, and how many events were said to be stored.
        self.seen: Counter[str] = Counter()
        self.accepted = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()
        self._database.close()

    def send(self, request: Request) -> None:
        """Raise where an answer is none that a sender may get."""
        headers = {
            "apikey": self._target.key, "origin": "https://shop.example", "user-agent": "fuzz",
            "content-type": request.content_type, **dict(request.headers),
        }  # fmt: skip
        # A connection that idled is closed by the other side, and can be read: at its end.
        if self._http.sock is not None and select([self._http.sock], [], [], 0)[0]:
            self._http.close()
        self._http.request(
            "POST",
            f"/rest/v1/rpc/{request.function}",
            body=request.body,
            headers={name: value.encode("latin-1") for name, value in headers.items()},
        )
        answer = self._http.getresponse()
        said = answer.read()
        self.seen["requests"] += 1
        # PostgREST's own two, before our functions run.
        if not _is_utf8(request) and (answer.status, said) == (500, b"Something went wrong"):
            self.seen["500, bytes that are no UTF-8"] += 1
            return
        if not request.good and answer.status == 500 and json.loads(said)["code"] == "54001":
            self.seen["500, nested too deep"] += 1
            return
        assert answer.status < 500, f"{answer.status}: {said!r}"
        self._judge(request, answer.status, json.loads(said))

    def send_as_postgrest(self, request: Request) -> None:
        """The same JSON, in the statement that PostgREST makes of it: any error must be the body's own."""
        try:
            text = request.body.decode()
        except UnicodeDecodeError:
            return
        if not request.is_json or "\0" in text:
            return
        try:
            row = self._database.execute(_AS_POSTGREST[request.function].encode(), [text]).fetchone()
        except psycopg.Error as error:
            code = error.sqlstate or ""
            # Class 22: what cannot be read. 54001: nested too deep. Neither has run a line of ours.
            if request.good or not (code.startswith("22") or code == "54001"):
                raise
            self.seen[f"as PostgREST calls it: {code}, nothing was run"] += 1
            return
        if row is None:
            return
        status = 200 if "accepted" in row[0] else OURS.get(row[0]["code"], 0)
        self._judge(request, status, row[0], by="as PostgREST calls it: ")

    def _judge(self, request: Request, status: int, said: Any, by: str = "") -> None:
        if status == 200:
            places = [no["index"] for no in said["rejected"]]
            self.accepted += said["accepted"]
            self.seen[f"{by}events accepted"] += said["accepted"]
            self.seen[f"{by}events repeated"] += said["duplicates"]
            self.seen[f"{by}events rejected by name"] += len(places)
            assert all(_names_a_field(no["reason"]) for no in said["rejected"]), said
            assert not set(places) & set(request.good), f"a good event was rejected: {said}"
            assert len(set(places)) == len(places), said
            if request.of is not None:
                assert said["accepted"] + said["duplicates"] + len(places) == request.of, said
            return
        assert 400 <= status < 500, f"{status}: {said}"
        code = said["code"]
        if code in OURS:
            assert (status, _names_a_field(said["message"])) == (OURS[code], True), f"{status}: {said}"
            self.seen[f"{by}{status} {code}, the field is named"] += 1
        else:
            assert code in BEFORE_US, f"{status}: {said}"
            assert said["message"], said
            self.seen[f"{by}{status} {code}, before our functions run"] += 1
        assert not request.good, f"a good event was refused: {said}"


def _names_a_field(reason: str) -> bool:
    # A field that no event has is named too: as it was sent.
    return any(map(reason.startswith, _NAMED)) or reason.endswith(": is not a field of an event")


def fuzz(target: Target, *, count: int, seed: int) -> tuple[Counter[str], int]:
    """Raise on the smallest bundle of requests found that gets what it must not; else say what was seen and stored.

    Whole bundles are sent, so it is `count` requests and a few more.
    """
    with Sender(target) as sender:

        def every_request(bundle: Bundle) -> None:
            for place, request in enumerate(bundle.requests()):
                sender.send(request)
                # The batch and the first event alone: one of each function.
                if place in (0, 2):
                    sender.send_as_postgrest(request)

        for more in itertools.count():
            left = count - sender.seen["requests"]
            if left <= 0:
                return sender.seen, sender.accepted
            run = settings(
                max_examples=max(1, min(100, left // 12)), deadline=None, database=None,
                phases=[Phase.generate, Phase.shrink], suppress_health_check=list(HealthCheck),
            )  # fmt: skip
            with_seed(seed * 1000 + more)(run(given(bundles(target.widgets))(every_request)))()
    raise AssertionError


def reach_the_limits(target: Target) -> tuple[Counter[str], int]:
    """The few requests that are known to be the largest."""
    with Sender(target) as sender:
        for request in at_the_limits(target.widgets):
            sender.send(request)
            sender.send_as_postgrest(request)
        return sender.seen, sender.accepted


# Afterwards.

_CATALOG = {
    "functions": "select oid::regprocedure::text, md5(prosrc), proacl::text, proconfig, prosecdef from pg_proc",
    "relations": "select oid::regclass::text, relkind, relacl::text, reloptions, relrowsecurity from pg_class c"
    " where c.relkind <> 't' and c.relnamespace <> 'pg_toast'::regnamespace and c.relpersistence <> 't'",
    "columns": "select a.attrelid::regclass::text, a.attname, a.atttypid::regtype::text, a.attnotnull, a.attacl::text"
    " from pg_attribute a join pg_class c on c.oid = a.attrelid"
    " where c.relkind in ('r', 'v', 'p', 'm') and a.attnum > 0 and c.relpersistence <> 't'",
    "constraints": "select conrelid::regclass::text, conname, pg_get_constraintdef(oid) from pg_constraint",
    "triggers": "select tgrelid::regclass::text, tgenabled, pg_get_triggerdef(oid) from pg_trigger"
    " where not tgisinternal",
    "policies": "select * from pg_policies",
    "schemas": "select nspname, nspacl::text from pg_namespace where nspname !~ '^pg_(toast_)?temp_'",
    "roles": "select rolname, rolsuper, rolconfig from pg_roles",
    "default privileges": "select defaclrole::regrole::text, defaclobjtype, defaclacl::text from pg_default_acl",
    "settings": "select setdatabase, setrole, setconfig from pg_db_role_setting",
}


def catalog(db: psycopg.Connection[Any]) -> dict[str, list[str]]:
    """All that a schema is made of."""
    return {what: sorted(map(str, db.execute(query.encode()).fetchall())) for what, query in _CATALOG.items()}


def broken_rows(db: psycopg.Connection[Any]) -> list[str]:
    """Constraints of ours that some row does not keep, asked anew of every row."""
    # Of tables, and of the domains that their columns are of.
    checks = db.execute(
        "select conrelid::regclass::text, conname, pg_get_expr(conbin, conrelid) from pg_constraint"
        " where contype = 'c' and connamespace in ('public'::regnamespace, 'widget_internal'::regnamespace)"
        " and conrelid <> 0"
        " union all "
        "select r.oid::regclass::text, c.conname,"
        " regexp_replace(pg_get_expr(c.conbin, 0), '\\mVALUE\\M', quote_ident(a.attname), 'g')"
        " from pg_constraint c join pg_attribute a on a.atttypid = c.contypid and a.attnum > 0"
        " join pg_class r on r.oid = a.attrelid and r.relkind = 'r' where c.contype = 'c' and c.contypid <> 0"
        " and c.connamespace in ('public'::regnamespace, 'widget_internal'::regnamespace)"
    ).fetchall()
    return [
        f"{table}.{name}"
        for table, name, condition in checks
        if db.execute(f"select from {table} where not ({condition}) limit 1".encode()).fetchone() is not None
    ]


def open_transactions(db: psycopg.Connection[Any]) -> int:
    waiting = db.execute(
        "select from pg_stat_activity where state like 'idle in transaction%' and pid <> pg_backend_pid()"
    )
    return len(waiting.fetchall())


@contextmanager
def nothing_else_changes(db: psycopg.Connection[Any]) -> Iterator[None]:
    """Raise if what happened inside left a changed catalog, an open transaction, or a row that it may not leave."""
    before = catalog(db)
    yield
    after = catalog(db)
    assert after == before, [what for what in before if after[what] != before[what]]
    assert open_transactions(db) == 0
    assert broken_rows(db) == []
    assert db.execute("select * from widget_internal.widget_calls_differences() limit 5").fetchall() == []
