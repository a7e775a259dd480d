"""What the programs of one object share: types, maps, global data, and C to reach them."""

from dataclasses import dataclass
from typing import Final

from .expressions import SIGNED, UNSIGNED, Dice, Options

PROGRAMS: Final = "programs"
SELECTED: Final = "selected"
DISPATCHER: Final = "dispatch"
NOTED: Final = 16  # results of a program that are kept
_GLOBALS: Final = 6


@dataclass(frozen=True)
class Cell:
    """A structure without padding, the value of maps: (name, type) of its members."""

    name: str
    members: tuple[tuple[str, str], ...]

    def declared(self) -> str:
        """Return the declaration."""
        return f"struct {self.name} {{ {' '.join(f'{kind} {name};' for name, kind in self.members)} }};"


@dataclass(frozen=True)
class MapOf:
    """A map that programs use: its name, type, key and value types, number of elements, flags.

    ``moves``: an update gives a key another element, and a deleted element is used again; so nobody may hold a pointer
    to one meanwhile.
    """

    name: str
    type: str
    key: str
    value: Cell
    entries: int
    flags: str = ""
    moves: bool = True

    def declared(self) -> str:
        """Return the definition, and subprograms that change it: inlined everywhere, changes take long to compile."""
        flags = f"__uint(map_flags, {self.flags}); " if self.flags else ""
        return (
            f"struct {{ __uint(type, BPF_MAP_TYPE_{self.type}); __uint(max_entries, {self.entries}); {flags}"
            f'__type(key, {self.key}); __type(value, struct {self.value.name}); }} {self.name} SEC(".maps");\n'
            f"static __noinline long put_{self.name}({self.key} *key, struct {self.value.name} *value, __u64 flags)\n"
            f"{{\n\treturn bpf_map_update_elem(&{self.name}, key, value, flags);\n}}\n"
            f"static __noinline long drop_{self.name}({self.key} *key)\n"
            f"{{\n\treturn bpf_map_delete_elem(&{self.name}, key);\n}}"
        )


@dataclass(frozen=True)
class Declarations:
    """Everything in front of the programs: ``text``, and what they can use.

    ``sequences`` are a queue and a stack, with what is in them.
    """

    text: str
    maps: tuple[MapOf, ...]
    sequences: dict[str, Cell]
    globals: tuple[tuple[str, str], ...]


def declarations(dice: Dice, options: Options) -> Declarations:
    """Declare random structures, one map of each type with random sizes, and global data."""
    cells = tuple(_cell(dice, f"cell{number}") for number in range(3))

    def cell() -> Cell:
        return dice.pick(cells)

    no_prealloc = "BPF_F_NO_PREALLOC"
    maps = (
        MapOf("slots", "ARRAY", "__u32", cell(), dice.pick((1, 7, 16, 33)), moves=False),
        MapOf("cpu_slots", "PERCPU_ARRAY", "__u32", cell(), dice.pick((1, 5, 16)), moves=False),
        MapOf("table", "HASH", "__u32", cell(), dice.pick((8, 24, 64)), dice.pick(("", no_prealloc))),
        MapOf("flows", "HASH", "struct flow", cell(), dice.pick((16, 100)), dice.pick(("", no_prealloc))),
        MapOf("cpu_table", "PERCPU_HASH", "__u64", cell(), dice.pick((8, 64)), dice.pick(("", no_prealloc))),
        # Far more room than there are keys: which element is evicted is no promise.
        MapOf("recent", "LRU_HASH", "__u16", cell(), 4096),
        MapOf("cpu_recent", "LRU_PERCPU_HASH", "__u32", cell(), 4096),
        MapOf("prefixes", "LPM_TRIE", "struct prefix", cell(), dice.pick((8, 200)), no_prealloc),
    )
    variables = tuple((f"global{number}", dice.pick((*UNSIGNED, *SIGNED))) for number in range(_GLOBALS))
    sequences = {"queue": cell(), "stack": cell()}
    lines = [_HEAD, *(one.declared() for one in cells), *(one.declared() for one in maps)]
    for name, value in sequences.items():
        lines.append(
            f"struct {{ __uint(type, BPF_MAP_TYPE_{name.upper()}); __uint(max_entries, {dice.pick((1, 5, 40))}); "
            f'__type(value, struct {value.name}); }} {name} SEC(".maps");'
        )
    lines.append(
        "struct { __uint(type, BPF_MAP_TYPE_BLOOM_FILTER); __uint(map_flags, BPF_F_ZERO_SEED); "
        f"__uint(max_entries, {dice.pick((20, 300, 3000))}); __uint(map_extra, {dice.pick((0, 1, 3, 15))}); "
        '__type(value, struct flow); } filter SEC(".maps");'
    )
    for name, kind in (("accounts", "HASH"), ("account_slots", "ARRAY")):
        lines.append(
            f"struct {{ __uint(type, BPF_MAP_TYPE_{kind}); __uint(max_entries, {dice.pick((4, 16, 32))}); "
            f'__type(key, __u32); __type(value, struct account); }} {name} SEC(".maps");'
        )
    for number, (name, kind) in enumerate(variables):
        lines.append(f"{kind} {name}{f' = {dice.below(1 << 7)}' if number % 2 else ''};")
    lines.append(f"static const __u32 numbers[16] = {{{', '.join(str(dice.below(1 << 32)) for _ in range(16))}}};")
    lines.append(f"const volatile __u32 constant = {dice.below(1 << 32)};")
    if options.redirects:
        lines.append(_DEVICES)
    return Declarations("\n".join(lines), maps, sequences, variables)


def _cell(dice: Dice, name: str) -> Cell:
    """Return a structure: members from the widest to the narrowest, filled up to eight bytes."""
    kinds = [dice.pick(("__u64", "__s64")) for _ in range(1 + dice.below(2))]
    for size, names in ((4, ("__u32", "__s32")), (2, ("__u16", "__s16")), (1, ("__u8", "__s8"))):
        count = dice.below(3)
        # So many that what follows is aligned, and the whole is a multiple of eight.
        per_word = 8 // size
        count += -count % per_word
        kinds += [dice.pick(names) for _ in range(min(count, per_word))]
    return Cell(name, tuple((f"m{number}", kind) for number, kind in enumerate(kinds)))


_HEAD: Final = """\
#include <stdbool.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define NUMERAL(number) (48 + ((number) & 15) % 11)
#define TABLE(index) numbers[OPAQUE((index) & 15)]
#define OPAQUE(value) ({ __u64 o_ = (value); asm volatile("" : "+r"(o_)); o_; })
#define SAME(pointer) ({ __u8 *s_ = (pointer); asm volatile("" : "+r"(s_)); s_; })
#define DISTANCE(from, to) OPAQUE((long)(to) - (long)(from))
#define LEAST(type, one, other) ({ type a_ = (one), b_ = (other); a_ < b_ ? a_ : b_; })
#define GREATEST(type, one, other) ({ type a_ = (one), b_ = (other); a_ > b_ ? a_ : b_; })
#define OVERFLOW(what, type, one, other) \\
	({ type r_; __builtin_##what##_overflow((type)(one), (type)(other), &r_) ? 1 + r_ : r_; })
#define ROTATE32(value, by) ({ __u32 v_ = (value), b_ = (by) & 31; v_ << b_ | v_ >> (-b_ & 31); })
#define ROTATE64(value, by) ({ __u64 v_ = (value), b_ = (by) & 63; v_ << b_ | v_ >> (-b_ & 63); })

/* As bpf_experimental.h has them: by the name of the instruction, and by its bytes. */
#define can_loop \\
	({ __label__ l_break, l_continue; bool ret = true; \\
	asm volatile goto("may_goto %l[l_break]" :: :: l_break); goto l_continue; \\
	l_break: ret = false; \\
	l_continue:; ret; })
#define cond_break \\
	({ __label__ l_break, l_continue; \\
	asm volatile goto("1:.byte 0xe5; .byte 0; .long ((%l[l_break] - 1b - 8) / 8) & 0xffff; .short 0" \\
	:: :: l_break); goto l_continue; \\
	l_break: break; \\
	l_continue:; })

struct bpf_map;
struct flow { __u32 one; __u16 other; __u8 proto; __u8 zero; };
struct prefix { __u32 length; __u8 bytes[4]; };
struct buffer { __u8 bytes[64]; };
struct state { __u64 sum; __u32 count; __u32 limit; };
struct account { __u64 sum; __u32 last; struct bpf_spin_lock lock; __s64 bytes; };
struct record { __u64 what; __u32 of; __u32 then; };
struct bits { __u32 one : 3, other : 17; __s32 third : 11, fourth : 20; };
struct bpf_iter_num { __u64 __opaque[1]; } __attribute__((aligned(8)));

extern void bpf_throw(__u64 cookie) __ksym;
extern int bpf_iter_num_new(struct bpf_iter_num *it, int start, int end) __ksym;
extern int *bpf_iter_num_next(struct bpf_iter_num *it) __ksym;
extern void bpf_iter_num_destroy(struct bpf_iter_num *it) __ksym;
extern int bpf_dynptr_from_xdp(struct xdp_md *ctx, __u64 flags, struct bpf_dynptr *p) __ksym;
extern void *bpf_dynptr_slice(const struct bpf_dynptr *p, __u32 offset, void *buffer, __u32 size) __ksym;
extern void *bpf_dynptr_slice_rdwr(const struct bpf_dynptr *p, __u32 offset, void *buffer, __u32 size) __ksym;
extern int bpf_dynptr_adjust(const struct bpf_dynptr *p, __u32 start, __u32 end) __ksym;
extern __u32 bpf_dynptr_size(const struct bpf_dynptr *p) __ksym;
extern int bpf_dynptr_memset(struct bpf_dynptr *p, __u32 offset, __u32 size, __u8 value) __ksym;

struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1024); __type(key, __u32); __type(value, __u64); }
	results SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __uint(max_entries, 64); __type(key, __u32); __type(value, __u32); }
	programs SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, __u32); }
	selected SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } events SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY); __uint(key_size, 4); __uint(value_size, 4); }
	samples SEC(".maps");
struct inner { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 8); __type(key, __u32); __type(value, __u64); }
	inner_one SEC(".maps"), inner_two SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS); __uint(max_entries, 6); __type(key, __u32);
	__array(values, struct inner); }
	outer SEC(".maps") = { .values = { [0] = &inner_one, [3] = &inner_two, [4] = &inner_one } };
struct inner_slots { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 9); __type(key, __u32);
	__type(value, __u64); }
	slots_one SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH_OF_MAPS); __uint(max_entries, 6); __type(key, __u32);
	__array(values, struct inner_slots); }
	outer_table SEC(".maps") = { .values = { [2] = &slots_one } };

char _license[] SEC("license") = "Dual MIT/GPL";

static __noinline int note(__u32 which, __u64 value)
{
	__u64 *slot = bpf_map_lookup_elem(&results, &which);

	if (slot)
		*slot = *slot * 31 + value;
	return 0;
}

SEC("xdp") int dispatch(struct xdp_md *ctx)
{
	__u32 zero = 0, *number = bpf_map_lookup_elem(&selected, &zero);

	if (number)
		bpf_tail_call(ctx, &programs, *number);
	return 77;
}
"""
_DEVICES: Final = """\
struct { __uint(type, BPF_MAP_TYPE_DEVMAP); __uint(max_entries, 8); __type(key, __u32); __type(value, __u32); }
	devices SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_CPUMAP); __uint(max_entries, 4); __type(key, __u32); __type(value, __u32); }
	cpus SEC(".maps");
"""
