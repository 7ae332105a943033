"""Memory strategies measured: which keeps what, at which budget, at what cost. Uses the public API, as any user would."""
