"""Notebooks as files: what they hold, how they run, what their contract asks."""
