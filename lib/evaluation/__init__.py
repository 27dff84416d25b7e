"""Metrics, one JSON record a run, and tables made from records."""
