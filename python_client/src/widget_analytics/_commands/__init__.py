"""The command's verbs, in groups. Each module has a ``register`` that adds its own to the program."""
