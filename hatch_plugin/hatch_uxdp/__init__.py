"""The hatch build hook that turns XDP sources into signed bundles in a wheel."""
