"""What scripts/check runs beyond style and types. Each exception stands beside its reason."""
