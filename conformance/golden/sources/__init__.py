"""Independent sources of what operators mean: one module per kind of source, each with `books()`."""
