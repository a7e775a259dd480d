"""What cases need: the content of their maps before frames run, as of ``uxdp test --set``, and options of clang."""

from typing import Final

SETTINGS: Final[dict[str, tuple[str, ...]]] = {
    "map_access_flags": ("written:1=17", "written:3=5", "written_hash:9=4"),
    "map_array_flags": ("readable:1=17", "readable:3=18446744073709551615"),
    "map_cpumap": ("plain:0=192", 'with_program:1={"qsize": 64}'),
    "map_devmap": ("plain:1=1", "plain:3=1", 'with_program:0={"ifindex": 1}'),
    "map_devmap_hash": ("plain:1000=1", 'with_program:2000={"ifindex": 1}'),
    "map_hash_flags": ("readable:7=99", "readable:80=3"),
    "map_in_map": ('outer:1={"max_entries": 4}', "outer:4={}", "outer:5=first", "outer[1]:7=70", "outer[0]:9=90"),
    "map_sum": ("devices:5=1", 'outer:4={"max_entries": 40}', "outer[4]:9=90"),
    "map_inner_choice": ("even:0=declared", 'even:1={"max_entries": 10}', 'odd:0={"max_entries": 100}'),
    "map_inner_kinds": tuple(
        f'{outer}:{slot}={{"max_entries": {entries}}}'
        for slot, sizes in ((0, (8, 4, 8, 3, 1000, 1000, 3)), (2, (8, 12, 8, 12, 2000, 2000, 12)))
        for outer, entries in zip(
            ("arrays", "sized_arrays", "cpu_arrays", "cpu_hashes", "lrus", "cpu_lrus", "tries"), sizes, strict=True
        )
    ),
    "onward": ('ports:1={"ifindex": 1}', 'ports:2={"ifindex": 1}', 'cpus:0={"qsize": 64}'),
    "user_ringbuf": (*(f"commands:=0x{bytes(range(n, n + 3 + n % 11)).hex()}" for n in range(90)), "commands:=0x"),
    "redirect_choice": ("devices:2=1",),
}

# What clang needs to be told.
CLANG_ARGS: Final[dict[str, tuple[str, ...]]] = {
    "atomics_ordered": ("-mcpu=v4",),
    "cpu_v4": ("-mcpu=v4",),
    "signed_division": ("-mcpu=v4",),
    "switch_table": ("-mcpu=v4",),
}
