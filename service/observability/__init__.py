"""Prometheus metrics, OpenTelemetry traces, and logs."""

__all__ = ["logging", "metrics", "timing", "tracing"]
