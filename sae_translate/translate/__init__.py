"""The translation core: one network for two languages, started from an alignment and trained without pairs."""
