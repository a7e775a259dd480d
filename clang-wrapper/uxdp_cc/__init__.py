"""uxdp-cc: a clang wrapper whose -c writes signed bundles; ``build`` is what the hatch plugin calls."""
