"""The local stack is what it claims to be; other tests mean something only if these hold."""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import psycopg
import pytest
from psutil import Process

from local_stack import supervisor
from local_stack.places import NODE, ROOT, SUPABASE
from local_stack.processes import await_condition, is_alive
from local_stack.stack import Stack
from tests.conftest import Connection, FreshDatabase, NewOwner, NewWidget

on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

PRIVILEGES = """
    select 'schema ' || nspname as object, nspowner::regrole::text as owner, nspacl::text as granted from pg_namespace
    union all
    select 'relation ' || oid::regclass, relowner::regrole::text, relacl::text from pg_class
    union all
    select 'column ' || attrelid::regclass || '.' || attname, null, attacl::text from pg_attribute
    union all
    select 'function ' || oid::regprocedure, proowner::regrole::text, proacl::text from pg_proc
    union all
    select 'type ' || oid::regtype, typowner::regrole::text, typacl::text from pg_type
    union all
    select 'default ' || oid, defaclrole::regrole::text, defaclacl::text from pg_default_acl
    union all
    select 'policy ' || polrelid::regclass || ' ' || polname, polroles::text,
      concat_ws(' ', polcmd, pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid)) from pg_policy
    union all
    select 'row security ' || oid::regclass, relrowsecurity::text, relforcerowsecurity::text from pg_class
    union all
    select 'role ' || rolname, to_jsonb(pg_roles)::text, null from pg_roles
    union all
    select 'member of ' || roleid::regrole, member::regrole::text, admin_option::text from pg_auth_members
    order by 1, 2, 3
"""


# Privileges


def test_the_project_owner_is_no_superuser(db: Connection) -> None:
    """Migrations that need more than the platform gives must fail here as well."""
    row = db.execute("select rolname, rolsuper from pg_roles where rolname = current_user").fetchone()

    assert row == {"rolname": "postgres", "rolsuper": False}


def test_the_project_owner_owns_what_the_migrations_made(db: Connection) -> None:
    """They ran as `postgres`, and not as the platform's superuser."""
    rows = db.execute(
        """
        select distinct relowner::regrole::text as owner from pg_class
        where relnamespace in ('public'::regnamespace, 'widget_internal'::regnamespace)
        """
    ).fetchall()

    assert rows == [{"owner": "postgres"}]


def test_new_tables_are_open_to_the_api_roles(fresh_database: FreshDatabase) -> None:
    """The platform's default grants are there, so a forgotten revoke shows."""
    stack = fresh_database(migrate=False)
    with psycopg.connect(stack.database_url, autocommit=True) as connection:
        connection.execute("create table public.forgotten (id int)")
        connection.execute("create function public.forgotten() returns int language sql as 'select 1'")

        reach = connection.execute(
            """
            select bool_and(has_table_privilege(role, 'public.forgotten', 'select, insert, update, delete')),
              bool_and(has_function_privilege(role, 'public.forgotten()', 'execute'))
            from unnest(array['anon', 'authenticated', 'service_role']) as role
            """
        ).fetchone()

    assert reach == (True, True)


def test_traffic_changes_no_privilege(
    stack: Stack, db: Connection, http: httpx.Client, new_owner: NewOwner, new_widget: NewWidget
) -> None:
    """The gateway library would grant everything to everybody on its first request; embedded here it must not."""
    owner = new_owner()
    widget = new_widget(owner)
    before = db.execute(PRIVILEGES).fetchall()
    stack.restart_gateway()  # so that first requests are among these

    anonymous = {"apikey": stack.publishable_key}
    signed_in = anonymous | {"Authorization": f"Bearer {stack.token_for(owner)}"}
    backend = {"apikey": stack.secret_key}
    for headers in (anonymous, signed_in, backend):
        http.get("/rest/v1/widgets", headers=headers)
        http.get("/rest/v1/widget_analytics", headers=headers)
        http.delete("/rest/v1/widget_analytics?id=is.null", headers=headers)
        event = {"widget_id": str(widget), "event_type": "widget_load", "session_id": "s"}
        http.post("/rest/v1/rpc/track_event", json=event, headers=headers)
        http.post("/rest/v1/rpc/complete_stale_sessions", json={}, headers=headers)
        http.post("/auth/v1/signup", json={"email": "not an address"}, headers=headers)

    assert db.execute(PRIVILEGES).fetchall() == before


def test_a_second_push_does_nothing(stack: Stack, db: Connection) -> None:
    """The migrations are recorded where the CLI looks for them."""
    versions = "select version from supabase_migrations.schema_migrations order by version"
    before = db.execute(versions).fetchall()

    output = stack.push_migrations()

    assert "up to date" in output
    assert db.execute(versions).fetchall() == before
    assert len(before) == len(list(ROOT.glob("supabase/migrations/*.sql")))


# The gateway


@pytest.mark.parametrize("path", ["/rest/v1/widgets", "/auth/v1/user"])
@pytest.mark.parametrize("key", [None, "sb_publishable_wrong", "sb_secret_", "eyJhbGciOiJub25lIn0.e30."])
def test_a_request_needs_a_known_key(http: httpx.Client, path: str, key: str | None) -> None:
    """No key and a wrong key are both 401, and a page may read that answer."""
    headers = {"Origin": "https://shop.example"} | ({"apikey": key} if key else {})

    answer = http.get(path, headers=headers)

    assert answer.status_code == 401
    assert answer.headers["access-control-allow-origin"] == "*"


def test_a_key_in_the_authorization_header_alone_is_none(stack: Stack, http: httpx.Client) -> None:
    """As on the platform: the gateway asks for the key first, and a token comes second."""
    answer = http.get("/rest/v1/widgets", headers={"Authorization": f"Bearer {stack.keys.service_role_key}"})

    assert answer.status_code == 401


@pytest.mark.parametrize("generation", ["sb_secret", "jwt"])
def test_both_generations_of_keys_work(
    stack: Stack, http: httpx.Client, new_widget: NewWidget, generation: str
) -> None:
    """Edge Functions are given both."""
    widget = new_widget()
    key = stack.secret_key if generation == "sb_secret" else stack.keys.service_role_key

    answer = http.get(f"/rest/v1/widgets?id=eq.{widget}&select=id", headers={"apikey": key})

    assert answer.json() == [{"id": str(widget)}]


def test_a_token_signed_with_another_secret_is_refused(http: httpx.Client, stack: Stack, new_owner: NewOwner) -> None:
    """A role is never taken from an unproven token."""
    token = stack.token_for(new_owner())
    header, payload, _ = token.split(".")

    answer = http.get(
        "/rest/v1/widgets",
        headers={"apikey": stack.publishable_key, "Authorization": f"Bearer {header}.{payload}.{'A' * 43}"},
    )

    assert answer.status_code == 401


def test_the_key_may_stand_in_the_address(
    http: httpx.Client, stack: Stack, db: Connection, new_widget: NewWidget
) -> None:
    """A beacon cannot send headers; and the page's own headers reach the database."""
    widget = new_widget(allowed_domains=("shop.example",))

    answer = http.post(
        "/rest/v1/rpc/track_event",
        params={"apikey": stack.publishable_key},
        data={"widget_id": str(widget), "event_type": "widget_load", "session_id": "s"},
        headers={"Origin": "https://shop.example", "User-Agent": "Browser/1.0"},
    )

    assert answer.is_success, answer.text
    rows = db.execute("select user_agent from widget_analytics where widget_id = %s", [widget]).fetchall()
    assert rows == [{"user_agent": "Browser/1.0"}]


@pytest.mark.parametrize("path", ["/rest/v1/widgets", "/rest/v1/rpc/track_events", "/auth/v1/token", "/rest/v1/rpc/no"])
def test_a_preflight_is_answered_without_a_key(http: httpx.Client, path: str) -> None:
    """A browser sends it before the request, and can add no key to it."""
    answer = http.options(
        path,
        headers={
            "Origin": "https://shop.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "apikey, content-type, x-own",
        },
    )

    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "apikey, content-type, x-own" in answer.headers["access-control-allow-headers"]
    assert int(answer.headers["access-control-max-age"]) > 0


@pytest.mark.parametrize("path", ["/", "/_system/config", "/_system/introspect", "/storage/v1/bucket", "/restless"])
def test_nothing_else_is_served(http: httpx.Client, stack: Stack, path: str) -> None:
    """The library's own pages tell too much, and the platform has none of them there."""
    answer = http.get(path, headers={"apikey": stack.secret_key})

    assert answer.status_code == 404


def test_an_owner_can_sign_up_and_in_with_supabase_js(stack: Stack, new_owner: NewOwner) -> None:
    """The dashboard uses that library, and the token that it gets is good for REST."""
    program = """
        import { createClient } from "@supabase/supabase-js";
        const client = createClient(process.env.API_URL, process.env.API_KEY, { auth: { persistSession: false } });
        const account = { email: "js@owner.example", password: "correct horse battery" };
        for (const step of ["signUp", "signInWithPassword"]) {
          const { error } = await client.auth[step](account);
          if (error) throw error;
        }
        const { data, error } = await client.from("widgets").select("id");
        if (error) throw error;
        console.log(JSON.stringify(data));
    """

    done = subprocess.run(
        [NODE, "--input-type=module", "--eval", program],
        cwd=ROOT,
        env={"API_URL": stack.api_url, "API_KEY": stack.publishable_key, "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


# Edge Functions


def test_an_unknown_function_is_404(http: httpx.Client) -> None:
    answer = http.get("/functions/v1/none")

    assert answer.status_code == 404


def test_a_function_can_be_run_with_another_environment(stack: Stack) -> None:
    """Without its secret the cleanup function refuses, whatever it is sent."""
    with stack.function("cleanup", {"CRON_SECRET": None}) as url:
        answer = httpx.post(url, headers={"Authorization": f"Bearer {stack.cron_secret}"}, timeout=60)

    assert answer.status_code >= 400
    assert url.startswith("http://127.0.0.1:")


def test_functions_are_reached_through_the_gateway(http: httpx.Client, stack: Stack) -> None:
    """With the headers that the caller sent, and the answer that the function gave."""
    answer = http.post("/functions/v1/cleanup", headers={"Authorization": f"Bearer {stack.cron_secret}"}, timeout=60)

    assert answer.status_code == 200, answer.text
    assert set(answer.json()) - {"calls_left"} == {"calls_checked", "calls_completed", "calls_still_active"}


# Processes


def test_stack_databases_are_apart(fresh_database: FreshDatabase) -> None:
    """A test may have a database of its own, with or without what the migrations make."""
    tables = "select count(*) from pg_tables where schemaname = 'public'"
    bare, migrated = fresh_database(migrate=False), fresh_database()

    with psycopg.connect(bare.database_url) as first, psycopg.connect(migrated.database_url) as second:
        counts = [connection.execute(tables).fetchone() for connection in (first, second)]

    assert counts[0] == (0,)
    assert counts[1] is not None
    assert counts[1][0] > 0


@on_linux
def test_everything_listens_on_loopback_only(stack: Stack) -> None:
    """Nobody else on the network can reach a developer's data."""
    listening = dict(_listening_sockets())
    ours = {
        address
        for pid in [os.getpid(), *_descendants(os.getpid())]
        for inode in _sockets_of(pid)
        if (address := listening.get(inode)) is not None
    }

    assert len(ours) >= 2 + len(list(ROOT.glob("supabase/functions/*/index.ts")))
    assert {address.partition(":")[0] for address in ours} == {"127.0.0.1"}


@pytest.fixture
def own_temporary_files(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in which no other run, nor another worker of this one, looks for leftovers."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o711)  # the database server may run as another user
        monkeypatch.setenv("TMPDIR", name)
        monkeypatch.setattr(tempfile, "tempdir", name)
        yield folder


@on_linux
def test_a_killed_run_leaves_nothing_behind(own_temporary_files: Path) -> None:
    """Neither processes, even when nothing was told to stop, nor files once the next run has started."""
    program = """
        import sys
        from local_stack.stack import Stack
        with Stack(durable=False, migrate=False) as stack:
            print(stack.directory, flush=True)
            sys.stdin.read()
    """
    run = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert run.stdout is not None
        directory = Path(run.stdout.readline().strip())
        processes = _descendants(run.pid)
        programs = {_program(pid) for pid in processes}
    finally:
        run.send_signal(signal.SIGKILL)
        run.communicate()

    assert {"node", "deno", "postgres"} <= programs
    assert directory.parent == own_temporary_files
    await_condition(
        "the end of a killed run's processes",
        lambda: not any(map(is_alive, processes)),
        seconds=60,
        explain=lambda: f"still there: {[pid for pid in processes if is_alive(pid)]} of {programs}",
    )
    assert directory.exists()
    with Stack(durable=False, migrate=False, gateway=False) as next_run:
        assert not directory.exists()
        assert next_run.directory.exists()
    assert not next_run.directory.exists()


@pytest.fixture
def background(tmp_path: Path) -> Iterator[Path]:
    """A folder for a stack in the background that is not the developer's own."""
    yield tmp_path
    supervisor.down(tmp_path)


@on_linux
def test_the_background_stack_starts_afresh_and_stops(background: Path) -> None:
    """`up` ends what ran before and gives a new database, and a killed stack is in nobody's way."""
    first = supervisor.up(background, seed=False)
    assert supervisor.running(background) == first
    assert (background / "state.json").stat().st_mode & 0o077 == 0, "it holds secrets"

    second = supervisor.up(background, seed=False)
    assert second.keys != first.keys
    assert not any(is_alive(pid) for name, pid in first.pids.items() if name != "supervisor")
    assert httpx.get(f"{second.api_url}/rest/v1/widgets", timeout=60).status_code == 401

    os.kill(second.pids["supervisor"], signal.SIGKILL)
    await_condition(
        "the end of a killed supervisor's processes",
        lambda: not any(map(is_alive, second.pids.values())),
        seconds=60,
        explain=lambda: str(second.pids),
    )
    assert supervisor.running(background) is None
    assert not supervisor.down(background)


def test_a_taken_port_is_left_to_its_owner(background: Path) -> None:
    """A second checkout, or Docker's stack, may run on this machine."""
    configuration = tomllib.loads((SUPABASE / "config.toml").read_text())
    with ExitStack() as taken:
        for section in ("api", "db"):
            with suppress(OSError):  # somebody has it: as good
                taken.enter_context(socket.create_server(("127.0.0.1", configuration[section]["port"])))

        stack = supervisor.up(background, seed=False)

    assert httpx.get(f"{stack.api_url}/rest/v1/widgets", timeout=60).status_code == 401
    assert stack.api_url != f"http://127.0.0.1:{configuration['api']['port']}"
    assert len(stack.notes) == 2


def test_a_stack_that_cannot_start_says_why(background: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last lines of what failed, and not only that something did."""
    monkeypatch.setattr(supervisor, "ROOT", background)

    with pytest.raises(RuntimeError, match="No module named local_stack"):
        supervisor.up(background, seed=False)

    assert supervisor.running(background) is None


@on_linux
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_it_runs_for_an_unprivileged_user_too() -> None:
    """Most developers are not root, and continuous integration often is."""
    nobody = 65534
    program = "from local_stack.stack import Stack\nwith Stack(durable=False): print('up')"
    with tempfile.TemporaryDirectory() as directory:
        os.chown(directory, nobody, nobody)

        def run(python: str, program: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                ["/usr/bin/env", python, "-c", program],
                cwd="/",
                env={
                    "TMPDIR": directory,
                    "HOME": directory,
                    "PATH": "/usr/bin:/bin",
                    "PYTHONDONTWRITEBYTECODE": "1",
                    "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]]),
                },
                capture_output=True,
                text=True,
                check=False,
                user=nobody,
                group=nobody,
                extra_groups=[],
            )

        # Either may lie in root's home, and the folder with this repository as well.
        pythons = (sys.executable, f"python{sys.version_info.major}.{sys.version_info.minor}")
        python = next((name for name in pythons if run(name, "import local_stack, psycopg").returncode == 0), None)
        if python is None:
            pytest.skip("Python or this folder lies where only root can reach it")
        done = run(python, program)

    assert (done.returncode, done.stdout) == (0, "up\n"), done.stderr


def _listening_sockets() -> Iterator[tuple[str, str]]:
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":  # LISTEN
                address, port = fields[1].split(":")
                if table == "tcp":
                    host = ".".join(str(byte) for byte in reversed(bytes.fromhex(address)))
                else:
                    host = f"[{address}]"
                yield f"socket:[{fields[9]}]", f"{host}:{int(port, 16)}"


def _sockets_of(pid: int) -> Iterator[str]:
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except FileNotFoundError:
            continue
        if target.startswith("socket:"):
            yield target


def _descendants(pid: int) -> list[int]:
    return [process.pid for process in Process(pid).children(recursive=True)]


def _program(pid: int) -> str:
    words = re.split(r"[\0 ]", Path(f"/proc/{pid}/cmdline").read_text())
    return Path(words[0]).name.rstrip(":")
