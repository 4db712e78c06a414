"""Metrics as functions of features, each with its source."""
