"""The source of one object of random programs."""

from dataclasses import dataclass
from typing import Final

from . import control_statements, frame_statements, helper_statements, map_statements
from .control_statements import verdict
from .declarations import NOTED, Declarations, declarations
from .expressions import SIGNED, UNSIGNED, Dice, Options, Values
from .writer import Callee, Place, Statement, Writer

# All that there is; what native code learns, add to one of these.
_STATEMENTS: Final[tuple[tuple[int, Statement], ...]] = (
    *control_statements.STATEMENTS,
    *frame_statements.STATEMENTS,
    *map_statements.STATEMENTS,
    *helper_statements.STATEMENTS,
)
_OPTIMISATIONS: Final = ("-O1", "-O2", "-O2", "-Os", "-O3")


@dataclass(frozen=True)
class Source:
    """Generated C: ``head`` is what the programs share, ``programs`` their text by name, in the order of numbers."""

    options: Options
    head: str
    programs: dict[str, str]

    @property
    def text(self) -> str:
        """All of it."""
        return "\n".join((self.head, *self.programs.values()))


def generate_source(seed: int, number: int, num_programs: int) -> Source:
    """Return object ``number`` of a seed, always the same one."""
    dice = Dice(f"{seed}/{number}")
    options = Options(dice.pick(("v3", "v3", "v4")), dice.pick(_OPTIMISATIONS), redirects=dice.chance(0.3))
    declared = declarations(dice, options)
    # Each program has dice of its own, so that it is the same one however many there are.
    programs = {
        f"p{index}": _program(Dice(f"{seed}/{number}/{index}"), options, declared, index)
        for index in range(num_programs)
    }
    return Source(options, declared.text, programs)


def _program(dice: Dice, options: Options, declared: Declarations, number: int) -> str:
    parts: list[str] = []
    callbacks = tuple(f"p{number}_step{index}" for index in range(dice.below(3)))
    for name in callbacks:
        parts += _callback(Writer(dice, options, declared, number, _STATEMENTS), name)
    memory_callees = tuple(f"p{number}_memory{index}" for index in range(dice.pick((0, 0, 1))))
    for name in memory_callees:
        parts += _memory_subprogram(Writer(dice, options, declared, number, _STATEMENTS), name)
    callees: tuple[Callee, ...] = ()
    for index in range(dice.pick((0, 0, 1, 2))):
        writer = Writer(dice, options, declared, number, _STATEMENTS)
        callee, lines = _subprogram(writer, f"p{number}_part{index}", callees, callbacks)
        callees += (callee,)
        parts += lines
    writer = Writer(dice, options, declared, number, _STATEMENTS)
    # With subprograms tail calls leave half of the stack.
    place = Place(_values(declared), callees, callbacks, memory_callees)
    writer.locals(place, 1 + dice.below(3))
    for _ in range(2):
        writer.frame_word(place)
    writer.statements(place, 2 + dice.below(4))
    for name, _kind in place.values.assignable[:3]:
        writer.line(f"note({number * NOTED + dice.below(NOTED)}, {name});")
    writer.line(f"return {verdict(writer, place)};")
    return "\n".join([*parts, f'SEC("xdp") int p{number}(struct xdp_md *ctx)', "{", *writer.lines, "}", ""])


def _values(declared: Declarations) -> Values:
    names = [name for name, _kind in declared.globals]
    return Values(["constant", *names[:4]])


def _callback(writer: Writer, name: str) -> list[str]:
    place = Place(_values(writer.declared), has_context=False, can_move=False, can_tail_call=False, nesting=1)
    place.values.readable += ["index", "state->sum", "state->count", "state->limit"]
    place.values.assignable += [("state->sum", "__u64"), ("state->count", "__u32"), ("state->limit", "__u32")]
    writer.locals(place, 1)
    writer.statements(place, writer.few())
    writer.line(f"return {writer.condition(place)} ? 1 : 0;" if writer.dice.chance(0.5) else "return 0;")
    return [
        f"static long {name}(__u32 index, void *data)",
        "{",
        "\tstruct state *state = data;",
        *writer.lines,
        "}",
        "",
    ]


def _memory_subprogram(writer: Writer, name: str) -> list[str]:
    """Return a global subprogram that takes a pointer, which the verifier takes for NULL, too."""
    place = Place(_values(writer.declared), has_context=False, can_move=False, can_tail_call=False, nesting=1)
    place.values.readable += ["state->sum", "state->count", "state->limit"]
    place.values.assignable += [("state->sum", "__u64"), ("state->count", "__u32"), ("state->limit", "__u32")]
    writer.locals(place, 1)
    writer.statements(place, writer.few(3))
    writer.line(f"return {writer.expression(place)};")
    return [
        f"__noinline int {name}(struct state *state)",
        "{",
        "\tif (!state)",
        "\t\treturn 1;",
        *writer.lines,
        "}",
        "",
    ]


def _subprogram(
    writer: Writer, name: str, callees: tuple[Callee, ...], callbacks: tuple[str, ...]
) -> tuple[Callee, list[str]]:
    dice = writer.dice
    kinds = tuple(dice.pick((*UNSIGNED, *SIGNED)) for _ in range(dice.below(4)))
    moves = dice.chance(0.5)
    place = Place(_values(writer.declared), callees, callbacks, can_move=moves, can_tail_call=False, nesting=1)
    parameters = "".join(f", {kind} a{index}" for index, kind in enumerate(kinds))
    place.values.readable += [f"a{index}" for index in range(len(kinds))] * 2
    writer.locals(place, 1 + dice.below(2))
    # LLVM passes nothing for a context that is not used, and the verifier expects one.
    writer.line(f"note({writer.number * NOTED + dice.below(NOTED)}, DISTANCE(ctx->data, ctx->data_end));")
    writer.statements(place, writer.few(4))
    kind = "static __noinline" if dice.chance(0.7) else "__noinline"
    result = dice.pick(("int", "__u64", "__u32", "long"))
    writer.line(f"return {writer.expression(place)};")
    head = f"{kind} {result} {name}(struct xdp_md *ctx{parameters})"
    return Callee(name, kinds, moves or any(one.moves for one in callees)), [head, "{", *writer.lines, "}", ""]
