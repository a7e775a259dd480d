"""Compile bound and verified bundles to native code."""
