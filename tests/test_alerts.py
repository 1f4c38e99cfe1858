"""Alerts: what is wrong is posted to a webhook once, again after a while, and when it is well again.

pg_net is in no package registry, so `net.http_post()` is made here, with pg_net's signature and tables; the test does
what pg_net's worker does: it sends what is queued, here to a receiver that runs, and writes the answer down.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import psycopg
import pytest
from psycopg.rows import dict_row

from local_stack.stack import Stack
from tests.conftest import Connect
from tests.support import Connection, Row, clean_up, record
from tests.test_rules_of_cleanup import ago

PG_NET = """
create schema net;
create table net.http_request_queue (
  id bigserial, method text not null, url text not null, headers jsonb not null, body bytea,
  timeout_milliseconds int not null
);
create table net._http_response (
  id bigint, status_code integer, content_type text, headers jsonb, content text, timed_out bool, error_msg text,
  created timestamptz not null default now()
);
create function net.http_post(
  url text, body jsonb default '{}', params jsonb default '{}',
  headers jsonb default '{"Content-Type": "application/json"}', timeout_milliseconds int default 1000
) returns bigint language sql volatile as $$
  insert into net.http_request_queue (method, url, headers, body, timeout_milliseconds)
  values ('POST', url, headers, convert_to(body::text, 'UTF8'), timeout_milliseconds) returning id
$$;
"""


class Webhook:
    """Takes what is posted; answers with `status`."""

    def __init__(self) -> None:
        self.status = 200
        self.bodies: list[Any] = []
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                webhook.bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(webhook.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hooks/secret"

    def taken(self) -> list[Any]:
        bodies, self.bodies = self.bodies, []
        return bodies


@contextmanager
def running(webhook: Webhook) -> Iterator[Webhook]:
    thread = threading.Thread(target=webhook.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield webhook
    finally:
        webhook.server.shutdown()
        webhook.server.server_close()


@pytest.fixture(scope="module")
def own_stack() -> Iterator[Stack]:
    with Stack(durable=False, jobs=False, gateway=False) as stack:
        yield stack


@pytest.fixture(scope="module")
def lone_db(own_stack: Stack) -> Iterator[Connection]:
    """A database in which nothing else happens: alarms are the whole project's."""
    with psycopg.connect(own_stack.database_url, autocommit=True, row_factory=dict_row) as connection:
        yield connection


@pytest.fixture
def webhook(lone_db: Connection) -> Iterator[Webhook]:
    """A receiver that alerts are enabled for, with an hour between repeats, and a project in which all is well."""
    lone_db.execute(PG_NET.encode())
    clean_up(lone_db)
    with running(Webhook()) as webhook:
        lone_db.execute("select public.enable_widget_alerts(%s, repeat_after => '1 hour')", [webhook.url])
        yield webhook
        lone_db.execute("select public.disable_widget_alerts()")
        lone_db.execute("drop schema net cascade")


def send(db: Connection) -> None:
    """The scheduled job, then pg_net's worker."""
    db.execute("select public.refresh_widget_health()")
    db.execute("select widget_internal.send_alerts()")
    for request in db.execute("delete from net.http_request_queue returning *").fetchall():
        answer = httpx.post(request["url"], content=request["body"], headers=request["headers"], timeout=60)
        db.execute(
            "insert into net._http_response (id, status_code) values (%s, %s)", [request["id"], answer.status_code]
        )


def pass_time(db: Connection, **time: float) -> None:
    """As if the last messages had been sent so much longer ago."""
    earlier = """
      (select coalesce(jsonb_agg(a || jsonb_build_object('told_at', (a ->> 'told_at')::timestamptz - %(time)s)), '[]')
       from jsonb_array_elements({}) a)
    """
    db.execute(
        f"update widget_internal.alert_settings set told = {earlier.format('told')}, posted_at = posted_at - %(time)s,"
        f" telling = case when telling is not null then {earlier.format('telling')} end".encode(),
        {"time": timedelta(**time)},
    )


def delay_cleanup(db: Connection, **time: float) -> None:
    db.execute("update public.widget_cleanup_runs set started_at = started_at - %s", [timedelta(**time)])


def alarms(body: Row, what: str = "alarms") -> list[str]:
    return [alarm["alarm"] for alarm in body[what]]


def alert_jobs(db: Connection) -> list[str]:
    jobs = db.execute("select command from cron.job where jobname = 'widget_send_alerts'").fetchall()
    return [job["command"] for job in jobs]


def new_lone_widget(db: Connection) -> Any:
    row = db.execute("insert into public.widgets (name) values ('Shop') returning id").fetchone()
    assert row is not None
    return row["id"]


def test_a_late_cleanup_is_told_once_repeated_and_cleared(lone_db: Connection, webhook: Webhook) -> None:
    """One message, none within the hour, a reminder after it, one all-clear, then silence."""
    send(lone_db)
    assert webhook.taken() == []

    delay_cleanup(lone_db, minutes=40)
    send(lone_db)
    (first,) = webhook.taken()
    pass_time(lone_db, minutes=59)
    send(lone_db)
    within_the_hour = webhook.taken()
    pass_time(lone_db, minutes=2)
    send(lone_db)
    (reminder,) = webhook.taken()
    clean_up(lone_db)
    send(lone_db)
    (all_clear,) = webhook.taken()
    send(lone_db)

    assert (alarms(first), alarms(first, "cleared")) == (["cleanup_late"], [])
    assert first["text"].startswith("Widget analytics: the cleanup is late")
    assert within_the_hour == []
    assert alarms(reminder) == ["cleanup_late"]
    assert (alarms(all_clear), alarms(all_clear, "cleared")) == ([], ["cleanup_late"])
    assert "well again" in all_clear["text"]
    assert webhook.taken() == []


def test_a_failed_cleanup_is_told(lone_db: Connection, webhook: Webhook) -> None:
    """With the database's own reason."""
    lone_db.execute(
        "update public.widget_cleanup_runs set error = '23514: no'"
        " where id = (select max(id) from public.widget_cleanup_runs)"
    )

    send(lone_db)

    (body,) = webhook.taken()
    assert body["alarms"][0]["message"] == "the last cleanup failed: 23514: no; widget-analytics cleanup runs it again"


def test_rates_below_their_thresholds_are_told(lone_db: Connection, webhook: Webhook) -> None:
    """A widget that loses events or ends is named; one with too few to judge by is not."""
    lossy, unfinished, small = (new_lone_widget(lone_db) for _ in range(3))
    for seq in range(1, 41, 2):
        record(lone_db, lossy, "s", "widget_open", ago(minutes=50), seq=seq)
    for n in range(20):
        record(lone_db, unfinished, f"s{n}", "call_start", ago(hours=2), call_id="c")
    record(lone_db, small, "s", "widget_open", ago(minutes=50), seq=19)
    clean_up(lone_db)

    send(lone_db)

    (body,) = webhook.taken()
    told = {(alarm["alarm"], alarm["widget_id"]) for alarm in body["alarms"]}
    assert told == {
        ("delivery_low", None),
        ("delivery_low", str(lossy)),
        ("completion_low", None),
        ("completion_low", str(unfinished)),
    }
    assert f"widget {lossy}: 51.3 % of the events arrived, expected at least 95.0 %" in body["text"]
    lone_db.execute(
        "select public.enable_widget_alerts(%s, min_delivery_rate => 0.2, min_completion_rate => 0)", [webhook.url]
    )
    send(lone_db)
    (body,) = webhook.taken()
    assert len(body["cleared"]) == 4


def test_what_the_webhook_does_not_take_is_posted_again(lone_db: Connection, webhook: Webhook) -> None:
    """Until it answers with success, and not after."""
    webhook.status = 503
    delay_cleanup(lone_db, minutes=40)
    send(lone_db)
    (lost,) = webhook.taken()

    webhook.status = 204
    pass_time(lone_db, minutes=5)
    send(lone_db)
    (again,) = webhook.taken()
    pass_time(lone_db, minutes=5)
    send(lone_db)

    assert again == lost
    assert webhook.taken() == []


def test_a_webhook_that_does_not_answer_gets_it_again(lone_db: Connection, webhook: Webhook) -> None:
    """Not while the post is on its way; then at each run, as long as it holds."""
    delay_cleanup(lone_db, minutes=40)

    def queued() -> int:
        lone_db.execute("select widget_internal.send_alerts()")
        requests = lone_db.execute("delete from net.http_request_queue returning body").fetchall()
        return sum("cleanup_late" in alarms(json.loads(request["body"])) for request in requests)

    first, at_once = queued(), queued()
    pass_time(lone_db, minutes=5)
    later = queued()
    clean_up(lone_db)
    pass_time(lone_db, minutes=5)

    assert (first, at_once, later, queued()) == (1, 0, 1, 0)


def test_alerts_need_pg_net_and_a_url(lone_db: Connection) -> None:
    """Each error says what to do, and nothing is enabled."""
    with pytest.raises(psycopg.errors.UndefinedFunction, match="alerts need the extension pg_net"):
        lone_db.execute("select public.enable_widget_alerts('https://hooks.example/x')")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="url: must be an http or https URL"):
        lone_db.execute("select public.enable_widget_alerts('hooks.example')")

    assert alert_jobs(lone_db) == []


def test_the_job_is_there_while_alerts_are_enabled(lone_db: Connection, webhook: Webhook) -> None:
    """Once, however often they are enabled."""
    lone_db.execute("select public.enable_widget_alerts(%s)", [webhook.url])
    scheduled = alert_jobs(lone_db)

    lone_db.execute("select public.disable_widget_alerts()")

    assert scheduled == ["select widget_internal.send_alerts()"]
    assert alert_jobs(lone_db) == []
    assert lone_db.execute("select * from widget_internal.alert_settings").fetchall() == []


@pytest.mark.parametrize("role", ["anon", "authenticated", "service_role"])
@pytest.mark.parametrize(
    "statement",
    [
        "select public.enable_widget_alerts('https://hooks.example/x')",
        "select public.disable_widget_alerts()",
        "select url from widget_internal.alert_settings",
        "update widget_internal.alert_settings set url = 'https://hooks.example/x'",
    ],
)
def test_the_webhook_is_a_secret(connect: Connect, role: str, statement: str) -> None:
    """No API role reads or sets where alerts go."""
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        connect(role).execute(statement.encode())
