"""Somebody who follows a page of the documentation to the letter: its code blocks are run as they stand, in order."""

import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from local_stack.places import NODE, ROOT, RUN, SUPABASE_CLI, bare_environment

# Commands that need an account on the hosted platform. They are held against the CLI's own help instead of being run.
HOSTED_ONLY = {
    "npx supabase login": "opens a browser to sign in to supabase.com",
    "npx supabase link": "looks the project up at supabase.com",
    "npx supabase functions deploy": "uploads to a hosted project; the stack runs the same functions",
    "npx supabase secrets set": "writes to a hosted project; the stack has the same secret",
    "npx supabase functions delete": "the same",
    "npx supabase secrets unset": "the same",
}
# What asks a package registry, and was done when this checkout was set up.
SET_UP = re.compile(r"npm ci\b(?: &&)?|pip install [^\n#&]*(?:&&)?")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: str) -> list[Block]:
    """The page's fenced blocks, in order."""
    text = (ROOT / page).read_text()
    return [
        Block(page, text.count("\n", 0, match.start()) + 1, match[1], match[2])
        for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    ]


@dataclass
class Reader:
    """Runs blocks in `folder`. `names` are what the page asks the reader to fill in, and how the reader knows."""

    folder: Path
    database_url: str
    names: dict[str, Callable[[], str]]
    environment: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def follow(self, page: list[Block]) -> None:
        """Run all blocks; one without a language is what the block before it prints."""
        printed = ""
        for block in page:
            if block.language == "":
                compare(block, printed)
            else:
                printed = self.run(block)

    def run(self, block: Block) -> str:
        text = self.fill_in(block.text)
        if block.language == "sql":
            return self._sql(block, text)
        if block.language == "bash":
            return self._bash(block, text)
        if block.language == "python":
            return self._program(block, [str(ROOT / ".venv/bin/python"), "-"], text)
        raise AssertionError(f"{block}: nobody says what to do with {block.language}")

    def fill_in(self, text: str) -> str:
        for name, value in self.names.items():
            if name in text:
                text = text.replace(name, value())
        return text

    def _sql(self, block: Block, text: str) -> str:
        # As in the SQL editor: as postgres, a statement after another.
        command = [
            "psql",
            "-X",
            "-q",
            "-v",
            "ON_ERROR_STOP=1",
            "-P",
            "footer=off",
            "-P",
            "pager=off",
            self.database_url,
        ]
        return self._program(block, command, text)

    def _bash(self, block: Block, text: str) -> str:
        """Run it in one shell; what it exports, and where it goes, the next block finds."""
        lines = []
        for line in re.sub(r"\\\n\s*", " ", text).splitlines():
            command = line.partition("  #")[0].strip()
            if any(command.startswith(prefix) for prefix in HOSTED_ONLY):
                check_syntax(block, command)
                self.left_out.append(command)
            else:
                lines.append(SET_UP.sub("", line))
        # --remote alone is the linked project; here it is the stack's database.
        script = re.sub(r"--remote(?![=\w])", f"--remote='{self.database_url}' --yes", "\n".join(lines))
        saved = self.folder / ".environment"
        output = self._program(
            block, ["bash", "-euo", "pipefail", "-c", f"{script}\nexport -p >'{saved}'; pwd >>'{saved}'"], ""
        )
        *exported, place = saved.read_text().splitlines()
        self.folder_now = Path(place)
        for name, value in re.findall(r'declare -x (\w+)="(.*)"', "\n".join(exported)):
            self.environment[name] = value.replace("\\$", "$")
        compare_answers(block, text, output)
        return output

    folder_now: Path | None = None

    def _program(self, block: Block, command: list[str], text: str) -> str:
        home = str(self.folder)
        environment = (
            bare_environment(HOME=home, SUPABASE_HOME=home, SUPABASE_TELEMETRY_DISABLED="1") | self.environment
        )
        done = subprocess.run(
            command, input=text, cwd=self.folder_now or self.folder, env=environment, capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{block} failed:\n{text}\n{done.stdout}{done.stderr}"
        return done.stdout


def compare(block: Block, printed: str) -> None:
    """What the page shows is what was printed; … stands for anything."""
    pattern = r"\s+".join(re.escape(word).replace("…", ".+") for word in block.text.split())
    assert re.fullmatch(rf"\s*{pattern}\s*", printed), f"{block} shows\n{block.text}\nand it is\n{printed}"


def compare_answers(block: Block, text: str, output: str) -> None:
    """Comments of the form `# {…}` are the answers, in order."""
    expected = [json.loads(line) for line in re.findall(r"^# ([{\[].*[}\]])$", text, re.MULTILINE)]
    if expected:
        answers = [json.loads(line) for line in re.findall(r"[{\[].*?[}\]](?=[{\[]|\s|$)", output)]
        assert answers == expected, f"{block} answered\n{output}"


def check_syntax(block: Block, command: str) -> None:
    """The CLI's help knows this command and each of its options."""
    words = command.split()[2:]
    names = [word for word in words if re.fullmatch(r"[a-z]+", word)][:2]
    help_text = cli_help(*names)
    if "USAGE" not in help_text or f"supabase {' '.join(names)}" not in help_text:
        names = names[:1]
        help_text = cli_help(*names)
    assert f"supabase {' '.join(names)}" in help_text, f"{block}: there is no {command}"
    for option in re.findall(r" (--[a-z-]+)", command):
        assert re.search(rf"{option}\b", help_text), f"{block}: {option} is unknown to supabase {' '.join(names)}"


def cli_help(*names: str) -> str:
    return subprocess.run(
        [NODE, SUPABASE_CLI, *names, "--help"], capture_output=True, text=True, timeout=60, check=False,
        env=bare_environment(SUPABASE_TELEMETRY_DISABLED="1", HOME=str(RUN)),
    ).stdout  # fmt: skip
