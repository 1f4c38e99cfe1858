"""The archive: a Parquet dataset of closed months' events and bills, in a folder or a store that fsspec knows.

::

    PLACE/events/month=2026-01/part-00001.parquet   the events that left the database with the month
    PLACE/calls/month=2026-01/calls.parquet         its calls as they were billed: widget_billing_calls()
    PLACE/charges/month=2026-01/charges.parquet     what each widget was charged for it: widget_billing_usage()
"""
