"""``python -m uxdp_runtime`` is ``uxdp``."""

from uxdp_runtime.cli import main

if __name__ == "__main__":
    main(prog_name="uxdp")
