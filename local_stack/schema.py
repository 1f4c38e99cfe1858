"""`python -m local_stack.schema` writes supabase/schema.sql: what the migrations make, to be read and compared."""

import re
import subprocess

from local_stack.places import SUPABASE, bare_environment
from local_stack.postgres_server import complete_server
from local_stack.stack import Stack

PATH = SUPABASE / "schema.sql"
_HEADER = """\
-- Made from supabase/migrations by scripts/schema, for reading and reviewing; never applied, never edited.

"""


def dump(stack: Stack) -> str:
    """What pg_dump says of our two schemas, without what differs from one dump, or one server, to the next."""
    server = complete_server()
    assert server is not None, "a stack runs, so there is a server"
    printed = subprocess.run(
        [server.bin / "pg_dump", "--schema-only", "--no-owner", "--schema=public", "--schema=widget_internal",
         stack.superuser_url],
        env=bare_environment(), capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    kept = [line for line in printed.split("\n") if not re.match(r"--|SET |SELECT pg_catalog\.set_config|\\", line)]
    return _HEADER + re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip() + "\n"


def main() -> None:
    with Stack(durable=False, gateway=False) as stack:
        PATH.write_text(dump(stack))
    print(f"wrote {PATH.relative_to(SUPABASE.parent)}")


if __name__ == "__main__":
    main()
