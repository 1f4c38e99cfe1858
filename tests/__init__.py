"""A regular package, so that one of the same name that `lago-python-client` installs is not found first."""
