"""Made-up requests, which may break nothing, and made-up statements, which may tell nothing of others."""
