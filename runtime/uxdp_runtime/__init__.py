"""The operator's side: the ``uxdp`` command, and what it takes to run a bundle."""
