"""Runs the code blocks of a page of docs in order, as a reader pastes them.

A block of ``bash``, ``sql`` or ``python`` is run. A block without a language right after it is what it prints: standard
output, then standard error; ``…`` there stands for any text within a line. A comment on the line above a block says
what is special about it: ``<!-- not run: why -->`` or ``<!-- exits with 6 -->``.
"""

import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from local_stack.places import ROOT
from tests.client_support import run

_BLOCK = re.compile(
    r"(?:^<!-- (?P<note>[^\n]*) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
_LANGUAGES = ("bash", "sql", "python")
# What a shell makes more of than words.
_SHELL = re.compile(r"[|<>$`;&*?(){}#]")


@dataclass(frozen=True)
class Block:
    """A block of code: where it stands, and what the page says that it prints; None where it says nothing."""

    page: str
    line: int
    language: str
    text: str
    output: str | None
    exit_code: int = 0


def blocks_of(page: Path) -> list[Block]:
    """The page's blocks that are run."""
    text = page.read_text()
    found = list(_BLOCK.finditer(text))
    blocks = []
    for match, following in pairwise([*found, None]):
        assert match is not None
        note = match["note"] or ""
        if match["language"] not in _LANGUAGES or note.startswith("not run: "):
            continue
        has_output = (
            following is not None and not following["language"] and text[match.end() : following.start()] == "\n"
        )
        blocks.append(
            Block(
                page=page.name,
                line=text.count("\n", 0, match.start("text")),
                language=match["language"],
                text=match["text"],
                output=following["text"] if has_output and following else None,
                exit_code=int(note.removeprefix("exits with ")) if note.startswith("exits with ") else 0,
            )
        )
    return blocks


def run_page(page: Path, *, folder: Path, environment: dict[str, str], database_url: str) -> list[Block]:
    """Run all its blocks in one folder, and give them."""
    blocks = blocks_of(page)
    for block in blocks:
        run_block(block, folder=folder, environment=environment, database_url=database_url)
    return blocks


def run_block(block: Block, *, folder: Path, environment: dict[str, str], database_url: str) -> None:
    """Run a block in a folder, and compare what it prints with what the page says.

    ``environment`` is what commands see; SQL runs in psql on the database.
    """
    done = _run(block, folder, environment, database_url)

    where = f"{block.page}:{block.line}\n{block.text}\n{done.stdout}{done.stderr}"
    assert done.returncode == block.exit_code, f"{where}exit code {done.returncode}, expected {block.exit_code}"
    if block.output is not None:
        printed, told = _lines(done.stdout + done.stderr), _lines(block.output)
        assert len(printed) == len(told), where
        for line, expected in zip(printed, told, strict=True):
            pattern = ".*".join(map(re.escape, expected.split("…")))
            assert re.fullmatch(pattern, line), f"{where}printed:  {line}\nexpected: {expected}"


def _run(
    block: Block, folder: Path, environment: dict[str, str], database_url: str
) -> "subprocess.CompletedProcess[str]":
    if block.language == "sql":
        program = ["/usr/bin/psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", database_url]
    elif block.language == "python":
        program = [sys.executable, "-"]
    else:
        commands = [line for line in block.text.replace("\\\n", " ").splitlines() if line]
        if all(line.startswith("widget-analytics ") and not _SHELL.search(line) for line in commands):
            return _run_here(commands, folder, environment)
        program = ["/bin/bash", "-euo", "pipefail"]
    # The virtual environment's programs come first.
    environment = environment | {
        "PATH": f"{ROOT / '.venv' / 'bin'}:{Path(sys.executable).parent}:{environment['PATH']}"
    }
    return subprocess.run(
        program, input=block.text, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def _run_here(commands: list[str], folder: Path, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """The command without a process, which takes most of its time to start."""
    done = subprocess.CompletedProcess(commands, 0, "", "")
    for line in commands:
        one = run(environment, folder, *shlex.split(line)[1:])
        done.stdout += one.stdout + one.stderr
        done.returncode = one.returncode
        if one.returncode:
            break
    return done


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip("\n").splitlines()]
