"""The .uxdp format: read, write, sign, authenticate and bind bundles. FORMAT.md is its specification.

Import the module you need; the package itself imports nothing, because commands that operators run often start fast.
"""
