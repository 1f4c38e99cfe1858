"""The local gateway answers as PostgREST does; local_stack/gateway/README.md lists where it does not."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import psycopg
import pytest

from local_stack.postgres_server import PostgresServer
from local_stack.stack import Stack

MAX_ROWS = 5
FORM = {"content-type": "application/x-www-form-urlencoded"}
TEXT = {"content-type": "text/plain"}
JSON = {"content-type": "application/json"}

FUNCTIONS = """
    create table log (entry text);
    create function hit(p text default 'default') returns void language sql as $$ insert into log values (p) $$;
    create function kind(p jsonb) returns jsonb language sql
      as $$ select jsonb_build_object('type', jsonb_typeof(p), 'value', p) $$;
    create function echo(p text) returns text language sql as $$ select p $$;
    create function double(p int) returns int language sql as $$ select 2 * p $$;
    create function header(name text) returns text language sql
      as $$ select current_setting('request.headers')::json ->> name $$;
    create function numbers() returns table (n int) language sql as $$ select generate_series(1, 12) $$;
    create function fail(code text) returns void language plpgsql
      as $$ begin raise exception 'said' using errcode = code, detail = 'd', hint = 'h'; end $$;
    create function busy() returns void language plpgsql as $$
    begin
      raise sqlstate 'PGRST' using message = '{"code": "x", "message": "busy"}',
        detail = '{"status": 429, "headers": {"Retry-After": "30"}}';
    end $$;
    create table things (
      price numeric default 1.50, big bigint default 9007199254740993,
      at timestamptz default '2026-10-10 10:30:10.32821Z',
      day date default '2026-10-10', stay interval default '90 minutes', extra jsonb default '{"price": 1.50}',
      prices numeric[] default '{1.50}', flag boolean default true, bytes bytea default '\\x01',
      nothing text, nan double precision default 'NaN'
    );
    insert into things default values;
    create function things_by_function() returns setof things language sql as $$ select * from things $$;
"""
# As PostgreSQL's own JSON writes them, which is what PostgREST passes on.
THINGS = (
    '[{"price":1.50,"big":9007199254740993,"at":"2026-10-10T10:30:10.32821+00:00","day":"2026-10-10",'
    '"stay":"01:30:00","extra":{"price":1.50},"prices":[1.50],"flag":true,"bytes":"\\\\x01","nothing":null,"nan":"NaN"}]'
)


@pytest.fixture(scope="module")
def probed(server: PostgresServer | None) -> Iterator[Stack]:
    """A stack of functions that show what reaches them."""
    with Stack(durable=False, migrate=False, scheduler=False, server=server, max_rows=MAX_ROWS) as stack:
        with psycopg.connect(stack.database_url, autocommit=True) as connection:
            connection.execute(FUNCTIONS)
        stack.restart_gateway()
        yield stack


@pytest.fixture
def rest(probed: Stack) -> Iterator[httpx.Client]:
    headers = {"apikey": probed.publishable_key, "origin": "https://shop.example"}
    with httpx.Client(base_url=f"{probed.api_url}/rest/v1", headers=headers, timeout=30) as client:
        yield client


@pytest.mark.parametrize("path", ["/things", "/rpc/things_by_function"])
def test_values_are_those_of_postgres_json(rest: httpx.Client, path: str) -> None:
    """Numbers are numbers with all their digits, times have their "T"."""
    assert rest.get(path).text == THINGS


@pytest.mark.parametrize("read", ["/numbers", "/numbers?limit=9"])
def test_lists_are_cut(rest: httpx.Client, read: str) -> None:
    """At `max_rows`, whatever limit is asked for; what comes after is asked for by offset."""
    first = rest.post(f"/rpc{read}", json={})
    rest_of_it = rest.post("/rpc/numbers?offset=10", json={})

    assert [row["n"] for row in first.json()] == [1, 2, 3, 4, 5]
    assert [row["n"] for row in rest_of_it.json()] == [11, 12]


Answer = tuple[int, Any]
BODIES: dict[str, tuple[str, bytes, dict[str, str], Answer]] = {
    "a form's JSON": ("kind", b"p={%22a%22:1.50}", FORM, (200, {"type": "object", "value": {"a": 1.5}})),
    "a form's number": ("kind", b"p=5", FORM, (200, {"type": "number", "value": 5})),
    "a form's JSON string": ("kind", b"p=%22s%22", FORM, (200, {"type": "string", "value": "s"})),
    "a form's text that is no JSON": ("kind", b"p=abc", FORM, (400, "22P02")),
    "a form's empty text": ("kind", b"p=", FORM, (400, "22P02")),
    "JSON": ("kind", b'{"p":{"a":[1]}}', JSON, (200, {"type": "object", "value": {"a": [1]}})),
    "JSON in a JSON string": ("kind", b'{"p":"{}"}', JSON, (200, {"type": "string", "value": "{}"})),
    "a form's JSON for text": ("echo", b"p={%22a%22:1}", FORM, (200, '{"a":1}')),
    "a form's letters": ("echo", b"p=a+b%C3%A9", FORM, (200, "a b\u00e9")),
    "a form's repeated field": ("echo", b"p=1&p=2", FORM, (200, "2")),
    "a form's NUL": ("echo", b"p=cut%00here", FORM, (200, "cut")),
    "a form with a charset": (
        "echo", b"p=1", {"content-type": "application/x-www-form-urlencoded;charset=UTF-8"}, (200, "1"),
    ),
    "a form's int": ("double", b"p=21", FORM, (200, 42)),
    "a form's int that is none": ("double", b"p=x", FORM, (400, "22P02")),
    "an object for text": ("echo", b'{"p":{"a":1}}', JSON, (200, '{"a":1}')),
    "a boolean for text": ("echo", b'{"p":true}', JSON, (200, "true")),
    "a number for text": ("echo", b'{"p":1.50}', JSON, (200, "1.50")),
    "a boolean for an int": ("double", b'{"p":true}', JSON, (400, "22P02")),
    "a fraction for an int": ("double", b'{"p":21.0}', JSON, (400, "22P02")),
    "half a surrogate pair for text": ("echo", b'{"p":"\\ud800"}', JSON, (400, "22P02")),
    "an array for text": ("echo", b'{"p":[1,2]}', JSON, (200, "[1,2]")),
    "an array of bodies": ("echo", b'[{"p":"first"},{"p":"second"}]', JSON, (200, "first")),
    "an empty array": ("echo", b"[]", JSON, (404, "PGRST202")),
    "no content type": ("echo", b'{"p":"1"}', {}, (200, "1")),
    "a NUL in JSON": ("echo", b'{"p":"a\\u0000b"}', JSON, (400, "22P05")),
    "broken JSON": ("echo", b'{"p":', JSON, (400, "PGRST102")),
    "JSON that is no UTF-8": ("echo", b'{"p":"\xff"}', JSON, (400, "PGRST102")),
    "multipart": ("echo", b"--x--", {"content-type": "multipart/form-data; boundary=x"}, (400, "PGRST102")),
    "a missing field": ("echo", b"{}", JSON, (404, "PGRST202")),
    "a missing field of a form": ("echo", b"", FORM, (404, "PGRST202")),
    "an unknown field": ("echo", b'{"p":"1","q":2}', JSON, (404, "PGRST202")),
    "an unknown field of a form": ("echo", b"p=1&q=2", FORM, (404, "PGRST202")),
    "an unknown field that `columns` leaves out": ("echo?columns=p", b'{"p":"1","q":2}', JSON, (200, "1")),
    "text": ("echo", b"hello", TEXT, (404, "PGRST202")),
    "an unknown query parameter": ("echo?q=x", b'{"p":"1"}', JSON, (400, "PGRST100")),
    "a filter on no column": ("numbers?q=eq.1", b"{}", JSON, (400, "42703")),
    "a query parameter without a value": ("echo?apikey", b'{"p":"1"}', JSON, (200, "1")),
}  # fmt: skip


@pytest.mark.parametrize("body", BODIES)
def test_bodies(rest: httpx.Client, body: str) -> None:
    """What a function is given, or which code the refusal has."""
    path, content, headers, (status, said) = BODIES[body]

    answer = rest.post(f"/rpc/{path}", content=content, headers=headers)

    assert answer.status_code == status, answer.text
    assert (answer.json() if status == 200 else answer.json()["code"]) == said


def test_text_for_a_function_of_defaults_is_dropped(probed: Stack, rest: httpx.Client) -> None:
    """It runs, with its defaults: a sender of text hears of success."""
    answer = rest.post("/rpc/hit", content=b"mine", headers=TEXT)

    with psycopg.connect(probed.database_url) as connection:
        entries = connection.execute("select entry from log").fetchall()
    assert answer.status_code == 204
    assert entries == [("default",)]


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (b"p=a%FFb", FORM),
        (b"p=\xff", FORM),
        (b"%FF=1", FORM),
        (b'{"p":"1"}', JSON | {"user-agent": "caf\u00e9"}),
        (b'{"p":"1"}', JSON | {"x-any": "\u00ff"}),
    ],
)
def test_bytes_that_are_no_utf8(rest: httpx.Client, content: bytes, headers: dict[str, str]) -> None:
    """In a form or a header they are a 500 that is no JSON and that no page can read."""
    in_bytes = {name.encode(): value.encode("latin-1") for name, value in headers.items()}

    answer = rest.post("/rpc/echo", content=content, headers=in_bytes)

    assert (answer.status_code, answer.text) == (500, "Something went wrong")
    assert "access-control-allow-origin" not in answer.headers


def test_headers_are_utf8(rest: httpx.Client) -> None:
    answer = rest.post("/rpc/header", json={"name": "user-agent"}, headers={b"user-agent": "caf\u00e9".encode()})

    assert answer.json() == "caf\u00e9"


STATUSES = {
    "P0001": 400, "0A000": 400, "22023": 400, "23502": 400, "23514": 400, "42703": 400, "42P05": 400,
    "42501": 401, "28000": 403, "42883": 404, "42P01": 404, "25006": 405, "23503": 409, "23505": 409,
    "25001": 500, "25P02": 500, "40001": 500, "40P01": 500, "53400": 500, "54001": 500, "55000": 500, "55P03": 500,
    "57014": 500, "58030": 500, "P0002": 500, "XX000": 500, "08006": 503, "53100": 503, "53300": 503, "57P01": 503,
    "PT429": 429,
}  # fmt: skip


@pytest.mark.parametrize("code", STATUSES)
def test_statuses_of_errors(rest: httpx.Client, code: str) -> None:
    """PostgREST's table of SQLSTATEs, among it 400 for what no sender can be the cause of."""
    answer = rest.post("/rpc/fail", json={"code": code})

    assert answer.status_code == STATUSES[code]
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.json() == {"code": code, "details": "d", "hint": "h", "message": "said"}


def test_retry_after_is_a_header_that_pages_cannot_read(rest: httpx.Client) -> None:
    answer = rest.post("/rpc/busy", json={})

    assert (answer.status_code, answer.headers["retry-after"]) == (429, "30")
    assert "retry-after" not in answer.headers["access-control-expose-headers"].lower()


@pytest.mark.parametrize(("method", "status"), [("GET", 405), ("HEAD", 405), ("PUT", 405), ("DELETE", 405)])
def test_methods_that_write_nothing(rest: httpx.Client, method: str, status: int) -> None:
    assert rest.request(method, "/rpc/hit").status_code == status


def test_the_preflight_allows_more_than_was_asked_for(rest: httpx.Client) -> None:
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "apikey, x-own"}

    answer = rest.options("/rpc/hit", headers=asked)

    allowed = "Authorization, apikey, x-own, Accept, Accept-Language, Content-Language"
    assert answer.headers["access-control-allow-headers"] == allowed


def test_dead_connections_on_demand(probed: Stack, rest: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every so many requests are answered as by a PostgREST whose pooled connection died, and run nothing."""
    monkeypatch.setenv("GATEWAY_DEAD_CONNECTION_EVERY", "3")
    probed.restart_gateway()

    answers = [rest.post("/rpc/double", json={"p": 1}) for _ in range(6)]

    monkeypatch.undo()
    probed.restart_gateway()
    assert [answer.status_code for answer in answers] == [200, 200, 400, 200, 200, 400]
    assert json.loads(answers[2].text) == {"code": "", "details": None, "hint": None, "message": ""}
