"""Sends closed months to billing systems, each charge once."""
