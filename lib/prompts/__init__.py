"""Prompts for SAM made from a network's prediction."""
