"""Proofs by breaking things. In short: tests/test_torture_*.py. At length: scripts/torture."""
