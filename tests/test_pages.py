"""README and the reference pages, followed on the project that they suppose: the demo's, with its widgets."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest

from local_stack.places import NODE, ROOT
from local_stack.stack import Stack
from tests.reader import Reader, blocks

OWNER = "0de00000-0000-7000-8000-000000000001"
BAKERY = "11111111-1111-7111-8111-111111111111"


@pytest.fixture(scope="module")
def demo() -> Iterator[Stack]:
    with Stack(durable=False, jobs=False, seed=True) as running:
        yield running


@pytest.fixture
def reader(demo: Stack, tmp_path: Path) -> Reader:
    shutil.copytree(ROOT / "supabase", tmp_path / "supabase")
    return Reader(
        folder=tmp_path,
        database_url=demo.database_url,
        names={},
        environment={
            "SUPABASE_URL": demo.api_url,
            "SUPABASE_PUBLISHABLE_KEY": demo.publishable_key,
            "SUPABASE_SECRET_KEY": demo.secret_key,
            "CRON_SECRET": demo.cron_secret,
            "OWNERS_TOKEN": demo.token_for(OWNER),
        },
    )


def test_readme(demo: Stack, reader: Reader) -> None:
    """REST, SQL, Python and the command, in the page's order. Its first blocks are scripts/demo and scripts/test."""
    first, shown, html, *others = blocks("README.md")
    assert (first.text.split()[0], shown.text.split()[1], html.language) == ("scripts/demo", "scripts/demo", "html")
    # Its fresh project has counted nothing yet, of which `status` would tell.
    with psycopg.connect(demo.database_url, autocommit=True) as db:
        db.execute("select complete_stale_sessions(), refresh_widget_health()")

    for block in others:
        reader.run(block)

    assert "44444444-4444-7444-8444-444444444444,mine," in (reader.folder / "november.csv").read_text()
    assert "<html" in (reader.folder / "november.html").read_text()


@pytest.mark.parametrize("page", ["docs/data-model.md", "docs/glossary.md"])
def test_queries(reader: Reader, page: str) -> None:
    """Each query of the page runs."""
    for block in blocks(page):
        if block.language:
            reader.run(block)


def test_security(demo: Stack, reader: Reader) -> None:
    """An owner erases a session of six events; afterwards the page's answer stands there."""
    events = [
        {
            "widget_id": BAKERY,
            "event_type": kind,
            "session_id": "mine",
            "call_id": "c",
            "page_url": "https://bakery.example/",
        }
        for kind in ("call_start", *["call_heartbeat"] * 4, "call_end")
    ]
    httpx.post(
        f"{demo.api_url}/rest/v1/rpc/track_events",
        headers={"apikey": demo.publishable_key, "origin": "https://bakery.example"},
        json={"events": events},
    ).raise_for_status()

    for block in blocks("docs/security.md"):
        reader.run(block)


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Each file that a page links to or shows is there, and each heading."""
    for target, _, heading in re.findall(r"\]\((?!https?:)([^)#]*)(#([\w-]+))?\)", page.read_text()):
        file = page if target == "" else page.parent / target
        assert file.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in headings}
            assert heading in anchors, f"{target}#{heading}"


def verdicts() -> list[tuple[str, str, int, str, bool]]:
    """Of docs/answers.md's table: each answer with its code, message and status, and whether its events go."""
    text = (ROOT / "docs/answers.md").read_text()
    rows = re.findall(
        r"^\| ([\d, ]+) \| (.*?) \| (.*?) \| (.*?) \|$", text[text.index("## Answers, one by one") :], re.M
    )
    found = []
    for statuses, codes, _, event in rows:
        for status in map(int, statuses.split(", ")):
            codes, _, message = codes.partition(", message ")
            for code in re.findall(r"`([^`]*)`", codes) or [""]:
                found.append((code.replace("…", "000"), message.strip("`"), status, event, event.startswith("drop")))
    return found


def test_the_rule_in_answers_is_its_table(tmp_path: Path) -> None:
    """The program decides each row of the table as the table does."""
    [program] = [block.text for block in blocks("docs/answers.md") if block.language == "js"]
    rows = [row for row in verdicts() if row[3] != "delivered"]
    assert len(rows) > 30
    script = f"""{program}
      const rows = {json.dumps(rows)};
      const body = (code, message) => ({{ code: code === '""' ? "" : code, message }});
      console.log(JSON.stringify(rows.map(([code, message, status]) => isRefused(status, body(code, message)))));
      const basics = [isDelivered(200, {{ accepted: 1 }}), isDelivered(200, undefined), isRefused(400, undefined)];
      console.log(JSON.stringify(basics));
    """
    done = subprocess.run([NODE, "-e", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    decided, basics = map(json.loads, done.stdout.splitlines())

    assert basics == [True, False, False]
    assert [row for row, is_refused in zip(rows, decided, strict=True) if row[4] != is_refused] == []
