"""`python -m local_stack.baseline` writes the baseline migrations from supabase/schemas, which hold the truth."""

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

from local_stack.places import ROOT, SUPABASE

SCHEMAS = SUPABASE / "schemas"
MIGRATIONS = SUPABASE / "migrations"
DAY = "20261128"
# What a project may leave out or adapt has a migration of its own; the rest of a set goes together.
_APART = re.compile(r"^\d+_(widgets|widget_helpers|schedule)$")


@dataclass
class Migration:
    """Some consecutive files of one set, to be applied together."""

    version: str
    name: str
    files: list[Path] = field(default_factory=list)

    @property
    def path(self) -> Path:
        return MIGRATIONS / f"{self.version}_{self.name}.sql"

    def text(self) -> str:
        names = ", ".join(str(path.relative_to(SUPABASE)) for path in self.files)
        return f"-- Made by scripts/baseline from {names}.\n\n" + "\n\n".join(path.read_text() for path in self.files)


def set_names() -> list[str]:
    return [folder.name for folder in sorted(SCHEMAS.iterdir()) if folder.is_dir()]


def baseline(sets: list[str] | None = None) -> list[Migration]:
    """The migrations that make these sets (all, if not named), in the order in which they apply."""
    made: list[Migration] = []
    for folder in set_names():
        if sets is not None and folder not in sets:
            continue
        number, set_name = folder.split("_", 1)
        index = 0
        together: Migration | None = None
        for path in sorted((SCHEMAS / folder).glob("*.sql")):
            concern = path.stem.split("_", 1)[1]
            if _APART.match(path.stem) or together is None:
                index += 1
                name = concern if concern.startswith("widget") else f"widget_{concern}"
                if concern == "schedule":
                    name = f"widget_{set_name}_schedule"
                together = Migration(f"{DAY}0{number}{index:02}00", name)
                made.append(together)
            together.files.append(path)
            if path.stem.endswith("_rights"):
                together.name = f"widget_{set_name}"
            if _APART.match(path.stem):
                together = None
    return made


def stale(migrations: list[Migration]) -> list[str]:
    """Names of baseline files that are not what the schemas make, missing and left-over ones included."""
    wanted = {migration.path: migration.text() for migration in migrations}
    found = {path: path.read_text() for path in MIGRATIONS.glob(f"{DAY}*.sql")}
    return sorted(path.name for path in wanted.keys() | found.keys() if wanted.get(path) != found.get(path))


def main() -> None:
    migrations = baseline()
    MIGRATIONS.mkdir(exist_ok=True)
    wanted = {migration.path: migration.text() for migration in migrations}
    for path in MIGRATIONS.glob(f"{DAY}*.sql"):
        if path not in wanted:
            path.unlink()
    for path, text in wanted.items():
        path.write_text(text)
        print(f"wrote {path.relative_to(ROOT)}", file=sys.stderr)


if __name__ == "__main__":
    main()
