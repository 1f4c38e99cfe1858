"""The parts of a Supabase project on this machine: PostgreSQL, REST and Auth, Edge Functions.

`local_stack.stack.Stack` is all of it. Nothing is imported here, because the set-up runs from
this package before anything is installed.
"""
