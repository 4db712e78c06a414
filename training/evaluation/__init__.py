"""How good a generator is: distances, coverage, memorisation, labels, use to a classifier."""
