"""Prometheus metrics, OpenTelemetry traces, and logs."""
