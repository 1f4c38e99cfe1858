"""`scripts/migration NAME [FUNCTION ...]` writes a migration that brings functions to what supabase/schemas says."""

import argparse
import re
import sys
from datetime import UTC, datetime

from local_stack.baseline import MIGRATIONS, SCHEMAS
from local_stack.places import ROOT


def function_text(name: str) -> str:
    """The function as the schemas have it, with its comment, to be replaced where it is there already."""
    pattern = re.compile(
        rf"^create function {re.escape(name)}\(.*?^\$\$;\n(?:\ncomment on function {re.escape(name)}\(.*?;\n)?",
        re.DOTALL | re.MULTILINE,
    )
    found = [match for path in sorted(SCHEMAS.rglob("*.sql")) for match in pattern.findall(path.read_text())]
    if len(found) != 1:
        sys.exit(
            f"{name}: found {len(found)} times in {SCHEMAS.relative_to(ROOT)}; name it with its schema, as it is there"
        )
    text: str = found[0]
    return text.replace("create function", "create or replace function", 1)


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/migration", description=__doc__)
    parser.add_argument("name", help="the concern, in snake case")
    parser.add_argument("functions", nargs="*", help="functions to bring to what the schemas say, with their schema")
    options = parser.parse_args()

    texts = [function_text(name) for name in options.functions]
    path = MIGRATIONS / f"{datetime.now(UTC):%Y%m%d%H%M%S}_widget_analytics_{options.name}.sql"
    path.write_text("\n\n".join(["-- Say here in one sentence what this changes, and why.\n", *texts]))
    print(f"wrote {path.relative_to(ROOT)}; the change to supabase/schemas is yours to write beside it")


if __name__ == "__main__":
    main()
