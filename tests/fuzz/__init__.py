"""Bad input: made-up requests, which may break nothing."""
