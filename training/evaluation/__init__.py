"""Quality of a generator: distances, coverage, memorisation, labels, downstream benefit."""
