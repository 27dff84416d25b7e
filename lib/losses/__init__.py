"""Losses, from field libraries where they exist."""
