"""Bad input and foreign eyes: made-up requests and queries, which may break nothing and see nothing of others."""
