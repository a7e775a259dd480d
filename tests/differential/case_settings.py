"""What cases need: the content of their maps before frames run, as of ``uxdp test --set``, and options of clang."""

from typing import Final

SETTINGS: Final[dict[str, tuple[str, ...]]] = {
    "map_array_flags": ("readable:1=17", "readable:3=18446744073709551615"),
    "map_cpumap": ("plain:0=192", 'with_program:1={"qsize": 64}'),
    "map_devmap": ("plain:1=1", "plain:3=1", 'with_program:0={"ifindex": 1}'),
    "map_devmap_hash": ("plain:1000=1", 'with_program:2000={"ifindex": 1}'),
    "map_hash_flags": ("readable:7=99", "readable:80=3"),
    "redirect_choice": ("devices:2=1",),
}

# What clang needs to be told.
CLANG_ARGS: Final[dict[str, tuple[str, ...]]] = {
    "signed_division": ("-mcpu=v4",),
}
