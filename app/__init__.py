"""The Haltline service: a kill switch's flip log behind HTTP."""
