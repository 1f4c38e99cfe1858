"""`tests/documents.py`: a page that prints something else than it says fails."""

from pathlib import Path

import pytest

from local_stack.stack import Stack
from tests.client_support import environment
from tests.documents import Block, run_page

PAGE = """# A page
```bash
echo one > file
cat file
```
```
one
```
<!-- exits with 2 -->
```bash
widget-analytics export
```
```
widget-analytics: say which period: …
```
<!-- not run: it would take everything away -->
```bash
rm file
```
```python
print(open("file").read() + "three")
```
```
one
three
```
```sql
select 1 as n;
```
```
 n
---
 1
(1 row)
```
```json
{}
```
"""


@pytest.fixture
def page(tmp_path: Path) -> Path:
    (tmp_path / "page.md").write_text(PAGE)
    return tmp_path / "page.md"


def run_all(stack: Stack, page: Path) -> list[Block]:
    return run_page(page, folder=page.parent, environment=environment(stack), database_url=stack.database_url)


def test_each_block_is_run_in_order(stack: Stack, page: Path) -> None:
    """Shell, the command, Python and SQL in one folder; what is not to be run is not."""
    blocks = run_all(stack, page)

    assert [block.line for block in blocks] == [2, 10, 20, 27]
    assert (page.parent / "file").read_text() == "one\n"


@pytest.mark.parametrize(
    ("said", "instead"), [("\none\n```\n", "\ntwo\n```\n"), ("exits with 2", "exits with 3"), ("which period", "when")]
)
def test_what_a_page_says_wrongly_is_found(stack: Stack, page: Path, said: str, instead: str) -> None:
    """Another output, another exit code."""
    page.write_text(PAGE.replace(said, instead, 1))

    with pytest.raises(AssertionError, match=r"page\.md:"):
        run_all(stack, page)
