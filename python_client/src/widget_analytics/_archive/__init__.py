"""The archive: months that left the ledger, as Parquet files in a folder or an S3-compatible store.

::

    PLACE/events/month=2026-01/part-00001.parquet   every session with an event in the month, whole
    PLACE/plans/month=2026-01/plans.parquet         what the widgets' calls cost then
    PLACE/manifests/2026-01.json                    what these files hold, by count, sum and SHA-256
"""
