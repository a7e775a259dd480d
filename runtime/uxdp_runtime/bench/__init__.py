"""Measure what a frame costs: in the kernel, natively, and natively at the limit."""
