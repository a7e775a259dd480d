"""Differences between kernel and native code: searched for by evolving inputs, and shrunk to what matters."""
