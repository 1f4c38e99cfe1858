"""What goes wrong outside is told in one line that says what to do, and never shows a key."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_stack.stack import Stack
from tests.conftest import NewWidget
from tests.support import Connection, record
from widget_analytics import (
    ConfigError,
    NotMigrated,
    Period,
    Refused,
    Unreachable,
    WidgetAnalytics,
    WidgetAnalyticsError,
    WrongKey,
)

MONTH = Period.month("1981-01")
SETTINGS = ("SUPABASE_URL", "SUPABASE_SECRET_KEY", "SUPABASE_PUBLISHABLE_KEY")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings of this machine's, and no .env file at hand."""
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def not_supabase() -> Iterator[str]:
    """The URL of a web server that is no API."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


class _Page(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        found = "usage" in self.path
        self.send_response(200 if found else 404)
        self.end_headers()
        self.wfile.write(b"<html>hello</html>")

    def log_message(self, *_: object) -> None:
        pass


def error_of(client: WidgetAnalytics) -> WidgetAnalyticsError:
    with client, pytest.raises(WidgetAnalyticsError) as error:
        list(client.usage(MONTH))
    assert "\n" not in str(error.value)
    return error.value


def test_a_wrong_key_is_told_as_such(stack: Stack) -> None:
    """The key itself is not in the message."""
    key = "sb_secret_this_is_no_key_of_this_project"

    error = error_of(WidgetAnalytics(url=stack.api_url, secret_key=key))

    assert isinstance(error, WrongKey)
    assert "SUPABASE_SECRET_KEY" in str(error)
    assert key not in str(error)


def test_the_publishable_key_cannot_read(stack: Stack) -> None:
    """The message says which key can."""
    error = error_of(WidgetAnalytics(url=stack.api_url, publishable_key=stack.publishable_key))

    assert isinstance(error, WrongKey)
    assert "SUPABASE_SECRET_KEY" in str(error)


def test_an_expired_token_is_a_wrong_key(stack: Stack) -> None:
    """An owner whose session is over must sign in again."""
    token = stack.token_for("0195f2a0-0000-7000-8000-000000000001", seconds=-60)

    error = error_of(WidgetAnalytics(url=stack.api_url, publishable_key=stack.publishable_key, access_token=token))

    assert isinstance(error, WrongKey)
    assert token not in str(error)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://no-such-host.invalid"])
def test_a_host_that_cannot_be_reached_is_named(url: str) -> None:
    """No connection and no such name: the host is in the message."""
    error = error_of(WidgetAnalytics(url=url, secret_key="sb_secret_x", attempts=2))

    assert isinstance(error, Unreachable)
    assert url.removeprefix("http://").split(":")[0] in str(error)
    assert "SUPABASE_URL" in str(error)


def test_a_server_that_is_no_supabase_is_told_as_such(not_supabase: str) -> None:
    """A page where the API should be, found or not found."""
    client = WidgetAnalytics(url=not_supabase, secret_key="sb_secret_x")

    with client:
        with pytest.raises(Unreachable, match="does not answer as a Supabase API"):
            list(client.usage(MONTH))
        with pytest.raises(Unreachable, match="does not answer as a Supabase API"):
            list(client.calls(MONTH))


def test_a_bill_of_which_the_archive_has_the_events_is_refused(
    stack: Stack, db: Connection, new_widget: NewWidget
) -> None:
    """It is a 500 (55000), and no later try would find them."""
    month, widget_id = Period.month("2013-05"), new_widget()
    record(db, widget_id, "s", "call_start", month.start, call_id="c")
    archived = "update widget_internal.call_states set archived_at = %s where widget_id = %s"
    db.execute(archived, [month.end, widget_id])

    with WidgetAnalytics(url=stack.api_url, secret_key=stack.secret_key) as analytics, pytest.raises(Refused) as error:
        list(analytics.usage(month, as_of=month.end))

    db.execute(archived, [None, widget_id])
    assert (error.value.code, error.value.is_passing) == ("55000", False)
    assert "ask the archive" in str(error.value)


def test_a_database_without_the_migrations_is_told_as_such() -> None:
    """Functions and tables alike: the message says to push the migrations."""
    with (
        Stack(durable=False, migrate=False) as bare,
        WidgetAnalytics(url=bare.api_url, secret_key=bare.secret_key) as client,
    ):
        for ask in (lambda: list(client.usage(MONTH)), client.cleanup_runs, client.complete_stale_sessions):
            with pytest.raises(NotMigrated, match="supabase db push"):
                ask()


def test_settings_that_are_missing_are_named() -> None:
    """Nothing is sent; the message names the variable and where it may stand."""
    with pytest.raises(ConfigError, match=r"SUPABASE_SECRET_KEY in the environment or in \.env"):
        WidgetAnalytics(url="https://x.supabase.co")
    with pytest.raises(ConfigError, match=r"SUPABASE_URL in the environment or in \.env"):
        WidgetAnalytics(secret_key="sb_secret_x")


@pytest.mark.parametrize("url", ["x.supabase.co", "ftp://x", "https://x.supabase.co/rest/v1", "https://"])
def test_a_url_that_cannot_be_right_is_told_as_such(url: str) -> None:
    """It must be the project's, without a path."""
    with pytest.raises(ConfigError, match="must look like https://your-project"):
        WidgetAnalytics(url=url, secret_key="sb_secret_x")


def test_a_publishable_key_in_the_secret_keys_place_is_found_before_it_is_sent(stack: Stack) -> None:
    """Both kinds: the new one by its prefix, the older one by the role in it."""
    for key in ("sb_publishable_abc", stack.keys.anon_key):
        with pytest.raises(ConfigError, match="holds a publishable key") as error:
            WidgetAnalytics(url=stack.api_url, secret_key=key)
        assert key not in str(error.value)


def test_a_key_with_a_line_break_never_shows() -> None:
    """An HTTP library would print the whole header."""
    with pytest.raises(ConfigError, match="characters that no key has") as error:
        WidgetAnalytics(url="https://x.supabase.co", secret_key="sb_secret_abc\ndef")

    assert "abc" not in str(error.value)


def test_the_environment_wins_over_the_file_and_arguments_over_both(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A .env above the working folder serves; what is set nearer wins."""
    (tmp_path / ".env").write_text(f"SUPABASE_URL={stack.api_url}/\nSUPABASE_SECRET_KEY={stack.secret_key}\n")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    with WidgetAnalytics() as client:
        assert list(client.usage(MONTH)) == []

    monkeypatch.setenv("SUPABASE_SECRET_KEY", "sb_secret_wrong")
    assert isinstance(error_of(WidgetAnalytics()), WrongKey)

    with WidgetAnalytics(secret_key=stack.secret_key) as client:
        assert list(client.usage(MONTH)) == []


def test_the_public_surface_is_what_is_listed() -> None:
    """All that `__all__` names is there, and nothing else is public by accident."""
    import widget_analytics

    submodules = {"book_models", "client", "errors", "models", "periods", "status", "cli"}
    public = {name for name in vars(widget_analytics) if not name.startswith("_")} - submodules

    assert public == set(widget_analytics.__all__)
