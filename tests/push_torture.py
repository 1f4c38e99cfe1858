"""`scripts/push-torture`: pushes that are interrupted anywhere, until each is done; then who was billed what."""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence

from tests.push_support import SECOND, closed_books, expected, push_to_the_end

KINDS = ("items", "meter", "lago", "lago-clickhouse", "openmeter")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="scripts/push-torture", description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)

    runs: Counter[str] = Counter()
    with closed_books() as books:
        for number in range(options.count):
            if number % 50 == 0:
                print(f"{number} months pushed", file=sys.stderr, flush=True)
            kind, seed = KINDS[number % len(KINDS)], options.seed + number
            runs[kind] += push_to_the_end(books, kind, SECOND, seed)
            if books.systems.of_customers(kind) != expected(books, kind, SECOND):
                print(f"{kind}, seed {seed}: billed {books.systems.of_customers(kind)}", file=sys.stderr)
                return 1
    print(f"{options.count} months pushed, each charge once, in {dict(runs)} runs (seed {options.seed})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
