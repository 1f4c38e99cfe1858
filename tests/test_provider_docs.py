"""What an operator reads about a provider is what the function and the client ask for."""

import re

import pytest

from local_stack.functions import ENVIRONMENT
from local_stack.places import ROOT
from tests.provider_lists import KEYS
from tests.provider_payloads import BODIES
from tests.support import Connection


@pytest.mark.parametrize("name", sorted(BODIES))
def test_each_provider_has_a_page_and_its_settings(db: Connection, name: str) -> None:
    """Address, secret, a query that runs, how to pull, what was never seen live; .env.example has the settings."""
    page = (ROOT / "docs" / "providers" / f"{name}.md").read_text()
    example = (ROOT / ".env.example").read_text()
    secret = f"{name.upper()}_WEBHOOK_SECRET"

    assert f"/functions/v1/providers/{name}" in page
    assert secret in page
    assert "**Never seen live:**" in page
    (query,) = re.findall(r"`(select [^`]+)`", page)
    db.execute(query)
    assert secret in ENVIRONMENT
    for setting in (secret, *KEYS.get(name, {})):
        assert f"\n{setting}=" in example
    if name in KEYS:
        assert f"widget-analytics providers pull {name} --since" in page
        assert all(setting in page for setting in KEYS[name])
    else:
        assert "There is no pull" in page
