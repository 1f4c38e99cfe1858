"""docs/reference.md is what the database says of itself."""

from local_stack import reference
from tests.support import Connection


def test_the_reference_is_fresh(db: Connection) -> None:
    """If this fails, run scripts/reference and commit what it wrote."""
    assert reference.PAGE.read_text() == reference.page(db)


def test_everything_public_is_commented(db: Connection) -> None:
    """Each function, table and setting says what it is for."""
    page = reference.page(db)
    settings = page[page.index("## Settings") : page.index("## Errors")]

    assert page.count("### track_event") == 2
    assert [row for row in settings.splitlines() if row.startswith("| `") and row.endswith("|  |")] == []
