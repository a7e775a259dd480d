"""Ports: the ways of frames in and out of native code."""
