"""`python -m local_stack up` and `down`."""

import argparse
import sys
from pathlib import Path

from local_stack import supervisor
from local_stack.places import RUN


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m local_stack", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start the stack in the background, with a fresh database")
    serve = commands.add_parser("serve", help="run the stack until told to stop")
    serve.add_argument("folder", type=Path, nargs="?", default=RUN, help="for its logs, and how to reach it")
    for command in (up, serve):
        command.add_argument("--no-seed", dest="seed", action="store_false", help="leave supabase/seed.sql out")
    commands.add_parser("down", help="stop it")
    arguments = parser.parse_args()
    try:
        if arguments.command == "serve":
            supervisor.serve(arguments.folder, seed=arguments.seed)
        elif arguments.command == "up":
            stack = supervisor.up(seed=arguments.seed)
            for note in stack.notes:
                print(note)
            print(f"The stack is up: {stack.api_url} and {stack.database_url}")
            print(f"A widget to play with: {stack.demo_site_url}")
        else:
            print("The stack is down." if supervisor.down() else "No stack was running.")
    except (RuntimeError, TimeoutError, PermissionError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
