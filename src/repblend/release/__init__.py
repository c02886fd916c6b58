"""Release of a set: a folder that others can read without this package, and that gives the same numbers with it."""
