"""Measures of samples against real images, each a pure function of their features ``[N, D]``."""
