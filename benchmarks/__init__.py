"""Benchmarks. Rates are compared with a ceiling of the same run: ratios hold on other machines."""
