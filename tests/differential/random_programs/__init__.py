"""Random XDP programs that the kernel's verifier accepts, to compare what native code makes of them; see ``batch``."""
