"""Statements about the frame: what is in it and in front of it, where it begins and ends.

Pointers into the frame are made anew for every access, from the context, and compared with the end right there.
"""

from typing import Final

from .expressions import SIGNED, SIZES, UNSIGNED
from .writer import Place, Statement, Writer, array_index, frame_offset, noted


def _read_frame(writer: Writer, place: Place) -> bool:
    if not place.has_context or not place.values.assignable:
        return False
    kind = writer.dice.pick((*UNSIGNED, *SIGNED))
    offset, size = frame_offset(writer, place), SIZES[kind]
    pointer = writer.name("p")
    name, _kind = writer.dice.pick(place.values.assignable)
    with writer.block(""):
        writer.line(f"__u8 *{pointer} = SAME((__u8 *)(long)ctx->data + {offset});")
        with writer.block(f"if ({pointer} + {size} <= (__u8 *)(long)ctx->data_end)"):
            writer.line(f"{name} {writer.dice.pick(('=', '+=', '^='))} *({kind} *){pointer};")
        if writer.dice.chance(0.3):
            with writer.block("else"):
                writer.body(place, 1)
    return True


def _write_frame(writer: Writer, place: Place) -> bool:
    if not place.has_context:
        return False
    kind = writer.dice.pick((*UNSIGNED, *SIGNED))
    pointer = writer.name("p")
    with writer.block(""):
        writer.line(f"__u8 *{pointer} = SAME((__u8 *)(long)ctx->data + {frame_offset(writer, place)});")
        with writer.block(f"if ({pointer} + {SIZES[kind]} <= (__u8 *)(long)ctx->data_end)"):
            writer.line(f"*({kind} *){pointer} {writer.dice.pick(('=', '+=', '^='))} {writer.expression(place)};")
    return True


def _metadata(writer: Writer, place: Place) -> bool:
    if not place.has_context or not place.values.assignable:
        return False
    kind, pointer = writer.dice.pick(UNSIGNED), writer.name("p")
    name, _kind = writer.dice.pick(place.values.assignable)
    with writer.block(""):
        writer.line(f"__u8 *{pointer} = SAME((__u8 *)(long)ctx->data_meta);")
        with writer.block(f"if ({pointer} + {SIZES[kind]} <= (__u8 *)(long)ctx->data)"):
            if writer.dice.chance(0.5):
                writer.line(f"*({kind} *){pointer} = {writer.expression(place)};")
            else:
                writer.line(f"{name} = *({kind} *){pointer};")
    return True


def _context(writer: Writer, place: Place) -> bool:
    if not place.has_context or not place.values.assignable:
        return False
    name, _kind = writer.dice.pick(place.values.assignable)
    value = writer.dice.pick(
        (
            "DISTANCE(ctx->data, ctx->data_end)",
            "DISTANCE(ctx->data_meta, ctx->data)",
            "ctx->ingress_ifindex",
            "ctx->rx_queue_index",
            "bpf_xdp_get_buff_len(ctx)",
            "bpf_get_smp_processor_id()",
        )
    )
    writer.line(f"{name} += {value};")
    return True


def _move_frame(writer: Writer, place: Place) -> bool:
    if not place.has_context:
        return False
    what = writer.dice.pick(("head", "tail", "meta"))
    # Where a frame goes is seen of another run in the kernel, in whose headroom other bytes may lie: none of them here.
    least = 0 if writer.options.redirects and what != "tail" else 32
    delta = f"((int)(({writer.expression(place)}) & 63) - {least})"
    if what == "meta":
        delta = f"({delta} & ~3)" if writer.dice.chance(0.8) else delta
    return noted(writer, place, f"bpf_xdp_adjust_{what}(ctx, {delta})")


def _copy_frame(writer: Writer, place: Place) -> bool:
    if not place.has_context:
        return False
    size = writer.dice.pick((1, 4, 14, 32, 64))
    name = writer.name("buffer")
    with writer.block(""):
        writer.line(f"struct buffer {name} = {{}};")
        index = array_index(writer, place, 64)
        writer.line(f"{name}.bytes[{index}] = {writer.expression(place)};")
        how = writer.dice.pick(("load", "store"))
        noted(writer, place, f"bpf_xdp_{how}_bytes(ctx, {frame_offset(writer, place)}, &{name}, {size})")
        if how == "load":
            noted(writer, place, f"{name}.bytes[{array_index(writer, place, 64)}]")
    return True


def _checksum(writer: Writer, place: Place) -> bool:
    one, other = writer.name("from"), writer.name("to")
    sizes = [writer.dice.pick((0, 4, 8, 16)) for _ in range(2)]
    with writer.block(""):
        for name in (one, other):
            numbers = ", ".join(writer.expression(place) for _ in range(4))
            writer.line(f"__u32 {name}[4] = {{ {numbers} }};")
        seed = writer.expression(place)
        first, second = (
            f"{name if size else '(void *)0'}, {size}" for name, size in zip((one, other), sizes, strict=True)
        )
        noted(writer, place, f"bpf_csum_diff({first}, {second}, {seed})")
    return True


STATEMENTS: Final[tuple[tuple[int, Statement], ...]] = (
    (6, _read_frame),
    (5, _write_frame),
    (1, _metadata),
    (2, _context),
    (3, _move_frame),
    (2, _copy_frame),
    (2, _checksum),
)
