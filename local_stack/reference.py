"""`python -m local_stack.reference` writes docs/reference.md from the comments that the migrations make."""

import re
import sys
from pathlib import Path

import psycopg
from psycopg.rows import DictRow, dict_row

from local_stack.baseline import SCHEMAS
from local_stack.places import ROOT
from local_stack.stack import Stack

PAGE = ROOT / "docs" / "reference.md"
_HEAD = """# API reference

Made by `scripts/reference` from the database's own comments. Functions are called in SQL, or over REST as
`POST /rest/v1/rpc/NAME`; tables and views are read at `/rest/v1/NAME`. [security.md](security.md) says who may do what.
"""
_SETTINGS = """## Settings

The columns of the one row of `widget_internal.settings`, changed in the SQL Editor:
`update widget_internal.settings set max_call_duration = '2 hours';`

"""
_FUNCTIONS = """
    select p.proname as name, pg_get_function_identity_arguments(p.oid) as signature,
      pg_get_function_arguments(p.oid) as arguments, pg_get_function_result(p.oid) as result,
      obj_description(p.oid, 'pg_proc') as comment,
      coalesce((
        select array_agg(r.grantee order by r.grantee) from widget_internal.rights r
        where r.privileges ilike '%execute%'
          and r.object = format('function public.%I(%s)', p.proname, oidvectortypes(p.proargtypes))
      ), '{}') as roles
    from pg_proc p
    where p.pronamespace = 'public'::regnamespace and p.prorettype <> 'trigger'::regtype
      and not exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e')
    order by p.proname
"""
_RELATIONS = """
    select c.relname as name, c.oid, c.relkind = 'v' as is_view, obj_description(c.oid, 'pg_class') as comment,
      coalesce((
        select array_agg(r.grantee order by r.grantee) from widget_internal.rights r
        where r.privileges ilike '%select%' and r.object = format('table public.%I', c.relname)
      ), '{}') as roles
    from pg_class c
    where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'v', 'p')
      and not exists (select from pg_depend d where d.objid = c.oid and d.deptype = 'e')
    order by c.relname
"""
_COLUMNS = """
    select a.attname as name, format_type(coalesce(nullif(t.typbasetype, 0), a.atttypid), a.atttypmod) as type,
      a.attnotnull and d.adbin is null as is_required,
      case when a.attgenerated = '' then pg_get_expr(d.adbin, d.adrelid) else 'computed' end as default_value,
      col_description(a.attrelid, a.attnum) as comment
    from pg_attribute a
    join pg_type t on t.oid = a.atttypid
    left join pg_attrdef d on (d.adrelid, d.adnum) = (a.attrelid, a.attnum)
    where a.attrelid = %s::regclass and a.attnum > 0 and not a.attisdropped
    order by a.attnum
"""
# What the names of conditions in `errcode = '…'` are on the wire, and what they mean here.
_ERRORS = {
    "invalid_parameter_value": ("22023", "400", "A parameter is wrong. The message begins with its name and a colon."),
    "check_violation": ("23514", "400", "A row breaks a rule of its table; the constraint's name states the rule."),
    "insufficient_privilege": ("42501", "403", "The role may not do this, or the door is closed."),
    "undefined_function": ("42883", "404", "An extension that is needed is missing; the hint names it."),
    "feature_not_supported": ("0A000", "400", "The transaction's isolation, or the server, does not allow this."),
    "lock_not_available": ("55P03", "500", "Something else is at work on the same. Nothing was changed: try again."),
    "object_not_in_prerequisite_state": (
        "55000",
        "500",
        "The state does not allow this (archived events, a closed month).",
    ),
    "data_corrupted": ("XX001", "500", "Stored data contradict each other. Stop, and compare with a backup."),
    "WA001": ("WA001", "400", "Used inside the schema only; no caller sees it."),
}
# Raised by answering and not by RAISE, so that refusals are counted.
_ANSWERS = [
    ("53400", "429", "Over quota: wait for `Retry-After`."),
    ("54000", "413", "More than 1,000 events in one call."),
]


def page(db: psycopg.Connection[DictRow]) -> str:
    functions, relations = (db.execute(query).fetchall() for query in (_FUNCTIONS, _RELATIONS))
    settings = _columns(db, "widget_internal.settings")
    parts = [_HEAD, "## Functions\n", *(_function(row) for row in functions), "## Tables and views\n"]
    for relation in relations:
        kind = "view" if relation["is_view"] else "table"
        parts.append(
            f"### {relation['name']}\n\n{_kind(kind, 'Read by', relation['roles'])}\n\n{_text(relation['comment'])}\n\n"
            + _table(_columns(db, relation["oid"]))
        )
    parts.append(_SETTINGS + _table([row for row in settings if row["name"] != "only_row"]))
    return "\n".join([*parts, _errors()])


def _columns(db: psycopg.Connection[DictRow], relation: object) -> list[DictRow]:
    return db.execute(_COLUMNS, [str(relation)]).fetchall()


def _kind(kind: str, verb: str, roles: list[str]) -> str:
    return f"*{kind}*. {verb} {', '.join(f'`{role}`' for role in roles) or 'the owner of the tables only'}."


def _function(row: DictRow) -> str:
    arguments = (
        ",\n  ".join(re.split(r", (?=\w+ (?:[a-z]|\"))", row["arguments"]))
        if len(row["arguments"]) > 80
        else row["arguments"]
    )
    body = f"\n  {arguments}\n" if "\n" in arguments else arguments
    result = row["result"]
    if len(result) > 100:
        result = re.sub(
            r"^TABLE\((.*)\)$", lambda found: "TABLE(\n  " + found[1].replace(", ", ",\n  ") + "\n)", result
        )
    return (
        f"### {row['name']}\n\n```\n{row['name']}({body}) → {result}\n```\n\n"
        f"{_kind('function', 'Executed by', row['roles'])}\n\n{_text(row['comment'])}\n"
    )


def _table(columns: list[DictRow]) -> str:
    rows = ["| column | type | default | |", "|---|---|---|---|"]
    for column in columns:
        default = (
            f"`{column['default_value']}`" if column["default_value"] else ("required" if column["is_required"] else "")
        )
        default = re.sub(r"::[a-z ]+(\[\])?`$", "`", default)
        rows.append(
            f"| `{column['name']}` | {column['type']} | {_cell(default)} | {_cell(_text(column['comment'] or ''))} |"
        )
    return "\n".join(rows) + "\n"


def _errors() -> str:
    used = {
        code for path in sorted(SCHEMAS.rglob("*.sql")) for code in re.findall(r"errcode = '(\w+)'", path.read_text())
    }
    unknown = used - _ERRORS.keys()
    if unknown:
        raise SystemExit(f"say in local_stack/reference.py what these mean: {', '.join(sorted(unknown))}")
    rows = sorted([_ERRORS[code] for code in used] + _ANSWERS)
    lines = [f"| `{code}` | {status} | {meaning} |" for code, status, meaning in rows if code != "WA001"]
    return (
        "## Errors\n\nWhat our own functions raise. [answers.md](answers.md) lists what PostgREST and PostgreSQL add, "
        "and which of them cost\nno event.\n\n| code | HTTP | meaning |\n|---|---|---|\n" + "\n".join(lines) + "\n"
    )


def _text(comment: str | None) -> str:
    assert comment is not None
    return re.sub(r"(?<![<\w])<(?=\w)", "&lt;", comment.replace("\n", " "))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> None:
    with Stack(durable=False, gateway=False) as stack, psycopg.connect(stack.database_url, row_factory=dict_row) as db:
        PAGE.write_text(page(db))
    print(f"wrote {Path(PAGE).relative_to(ROOT)}", file=sys.stderr)


if __name__ == "__main__":
    main()
