"""Frames without a network card: generated ones (generate, constants), and those of capture files (capture)."""
