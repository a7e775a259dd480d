"""Talk to the kernel's BPF: bpf(2) itself, and libbpf for everything that it does better."""
