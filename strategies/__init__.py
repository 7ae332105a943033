"""How what goes into a context is chosen: one file for each strategy."""
