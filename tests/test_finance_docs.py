"""The month's work in docs/finance.md, pasted as it stands into an empty project."""

import json
from pathlib import Path

from local_stack.places import ROOT
from local_stack.stack import Stack
from tests.client_support import environment
from tests.documents import run_page


def test_a_months_work_is_done_with_the_command_alone(tmp_path: Path) -> None:
    """Each block prints what the page says; the files are there, and the customer's page tells of its credit."""
    with Stack(durable=False, jobs=False) as stack:
        blocks = run_page(
            ROOT / "docs" / "finance.md",
            folder=tmp_path,
            environment=environment(stack),
            database_url=stack.database_url,
        )

    assert len(blocks) >= 15
    assert {block.language for block in blocks} == {"bash"}
    pending = [json.loads(line) for line in (tmp_path / "pending.jsonl").read_text().splitlines()]
    assert [(row["widget_name"], row["is_closed"], row["difference_seconds"]) for row in pending] == [
        ("Bakery voice", False, 900),
        ("Clinic voice", False, -1500),
    ]
    page = (tmp_path / "c-2001.html").read_text()
    assert "Customer C-2001" in page
    assert "\N{MINUS SIGN}2.25 EUR" in page
    assert "set by Eve Adams: a test call" in page
    assert "Bakery" not in page
