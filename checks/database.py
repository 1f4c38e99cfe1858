"""`python -m checks.database`: what linters say of the database that the migrations make."""

import json
import subprocess
import sys
from collections.abc import Callable

import psycopg

from checks.findings import report
from local_stack.migrations import supabase
from local_stack.places import ROOT, bare_environment
from local_stack.stack import Stack

PGRLS = ROOT / ".venv" / "bin" / "pgrls"

HARMLESS = [
    # A value that is cast once in a call takes no time that can be measured, and what does not fit is an error.
    "Hidden casting can be a performance issue.",
    # A guess, as it says itself; a function that is called volatile without need is only a little slower.
    "attention: cannot to determine volatility of used dynamic SQL",
]

# What these execute is made of names in the catalog or in our own list, quoted by format().
DYNAMIC = ("apply_rights", "call_hooks")

# Supabase's advisors 0028 and 0029 see the exposed schemas alone. These run as their owner in all of ours, and visitors
# or signed-in users may execute them:
OPEN_DEFINERS = {
    "widget_internal.record_events": "the door: checks host, widget and input, then stores events",
    "widget_internal.owner_email": "tells visitors their own address alone",
    "widget_internal.closed_months": "says which months are closed, the same for all widgets",
    "widget_internal.owned_widget_ids": "says which widgets are the caller's own; every policy asks it",
    "widget_internal.erase_session": "checks that the caller owns the widget, then erases one session of it",
}


def lint(stack: Stack) -> list[str]:
    """`supabase db lint`: plpgsql_check with Supabase's choice of warnings."""
    return _supabase(stack, "lint")


def advisors(stack: Stack) -> list[str]:
    """`supabase db advisors`: the platform's own advice on security and performance."""
    return _supabase(stack, "advisors")


def plpgsql(stack: Stack) -> list[str]:
    """plpgsql_check with all its warnings over every function, a trigger's with each table that it is on."""
    with psycopg.connect(stack.superuser_url) as connection:
        rows = connection.execute(
            """
            select f.oid::regprocedure || case when t.tgrelid <> 0 then ' on ' || t.tgrelid::regclass else '' end,
              said.lineno, said.level, said.message, said.detail
            from pg_proc f
            join pg_namespace n on n.oid = f.pronamespace
            join pg_language l on l.oid = f.prolang
            left join (
              select distinct tgfoid, tgrelid, tgoldtable, tgnewtable from pg_trigger where not tgisinternal
            ) t on t.tgfoid = f.oid
            cross join lateral extensions.plpgsql_check_function_tb(
              f.oid, coalesce(t.tgrelid, 0), oldtable => t.tgoldtable, newtable => t.tgnewtable,
              extra_warnings => true, performance_warnings => true, security_warnings => true
            ) said
            where l.lanname = 'plpgsql' and n.nspname in ('public', 'widget_internal')
              and not coalesce(said.hint = any (%(harmless)s), false)
              and not coalesce(said.detail = any (%(harmless)s), false)
              and not (f.proname = any (%(dynamic)s)
                and (said.level = 'security' or said.detail like '%%dynamic SQL'))
              -- In an exposed schema none may be STABLE: a broken form would leave a read-only transaction open.
              and not (n.nspname = 'public' and said.message like '%%should be STABLE%%')
            order by 1, 2
            """,
            {"harmless": HARMLESS, "dynamic": list(DYNAMIC)},
        ).fetchall()
    return [
        f"{function}, line {line}: {level}: {message} {detail or ''}" for function, line, level, message, detail in rows
    ]


def row_security(stack: Stack) -> list[str]:
    """pgrls: 68 rules on policies, definers, views and roles; exceptions are in pgrls.toml."""
    options = ["--database-url", stack.database_url, "--config", str(ROOT / "pgrls.toml"), "--format", "json"]
    done = subprocess.run(
        [PGRLS, "lint", *options], capture_output=True, text=True, env=bare_environment(), check=False
    )
    if done.returncode not in (0, 1):
        raise RuntimeError(f"pgrls failed\n{done.stderr}")
    return [
        f"{found['rule_id']} {found['location']}: {found['message']}"
        for found in json.loads(done.stdout)["violations"]
        if found["severity"] != "info"
    ]


def open_definers(stack: Stack) -> list[str]:
    """Functions that run as their owner and that visitors or signed-in users may execute, wherever they are."""
    with psycopg.connect(stack.database_url) as connection:
        rows = connection.execute(
            """
            select n.nspname || '.' || p.proname, string_agg(role, ', ')
            from pg_proc p
            join pg_namespace n on n.oid = p.pronamespace,
              unnest(array['anon', 'authenticated']) as role
            where n.nspname in ('public', 'widget_internal') and p.prosecdef
              and has_function_privilege(role, p.oid, 'execute')
            group by 1
            order by 1
            """
        ).fetchall()
    return [f"{name} runs as its owner for {roles}" for name, roles in rows if name not in OPEN_DEFINERS]


def _supabase(stack: Stack, command: str) -> list[str]:
    """What is above INFO, which is what the CLI tells unless asked for more."""
    output = supabase("db", command, f"--remote={stack.database_url}", home=stack.directory / "supabase")
    start = output.find("[\n")
    if start < 0:
        if "No " not in output:
            raise RuntimeError(f"supabase db {command} said neither what it found nor that it found nothing\n{output}")
        return []
    found, _ = json.JSONDecoder().raw_decode(output[start:])
    return [
        str(finding.get("detail") or finding)
        for finding in found
        if str(finding.get("function", "")).rpartition(".")[2] not in DYNAMIC
    ]


CHECKS: dict[str, Callable[[Stack], list[str]]] = {
    "supabase db lint": lint,
    "supabase db advisors": advisors,
    "plpgsql_check": plpgsql,
    "pgrls": row_security,
    "open definers": open_definers,
}


def main() -> int:
    with Stack(durable=False, gateway=False) as stack:
        return report({name: check(stack) for name, check in CHECKS.items()})


if __name__ == "__main__":
    sys.exit(main())
