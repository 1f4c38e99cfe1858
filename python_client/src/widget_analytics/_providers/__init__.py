"""The call providers' own lists of calls, for records that no webhook brought."""
