"""Proofs by breaking things: crashes, outages, races and full disks, short in tests/test_torture_*.py, long in scripts/torture."""
