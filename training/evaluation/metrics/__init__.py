"""Metrics as pure functions of features, each with its source."""
