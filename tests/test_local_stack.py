"""The local stack is what it claims to be; other tests mean something only if these hold."""

import httpx
import pytest

from tests.conftest import Connection
from local_stack.stack import Stack


def test_the_project_owner_is_no_superuser(db: Connection) -> None:
    """Migrations that need more than the platform gives must fail here as well."""
    row = db.execute("select rolname, rolsuper from pg_roles where rolname = current_user").fetchone()

    assert row == {"rolname": "postgres", "rolsuper": False}


@pytest.mark.parametrize("key", [None, "sb_publishable_wrong"])
def test_a_request_needs_a_known_key(http: httpx.Client, key: str | None) -> None:
    """No key and a wrong key are both 401, and a page may read that answer."""
    headers = {"Origin": "https://shop.example"} | ({"apikey": key} if key else {})

    answer = http.get("/rest/v1/widgets", headers=headers)

    assert answer.status_code == 401
    assert answer.headers["access-control-allow-origin"] == "*"


def test_the_key_may_stand_in_the_address(http: httpx.Client, stack: Stack) -> None:
    """A beacon cannot send headers."""
    answer = http.post("/rest/v1/rpc/track_events", params={"apikey": stack.publishable_key}, data={"events": "[]"})

    assert answer.status_code == 200, answer.text
