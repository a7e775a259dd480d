"""The source of one object of random programs."""

from dataclasses import dataclass
from functools import partial
from typing import Final

from . import collection_statements, control_statements, frame_statements, helper_statements, map_statements
from .control_statements import verdict
from .declarations import NOTED, Declarations, declarations
from .expressions import SIGNED, UNSIGNED, Dice, Options, Values
from .writer import Callee, ElementCallback, Place, Statement, Writer

# All that there is; what native code learns, add to one of these.
_STATEMENTS: Final[tuple[tuple[int, Statement], ...]] = (
    *control_statements.STATEMENTS,
    *frame_statements.STATEMENTS,
    *map_statements.STATEMENTS,
    *collection_statements.STATEMENTS,
    *helper_statements.STATEMENTS,
)
_OPTIMISATIONS: Final = ("-O1", "-O2", "-O2", "-Os", "-O3")


@dataclass(frozen=True)
class Source:
    """Generated C: ``head`` is what the programs share, ``programs`` their text by name, in the order of numbers.

    ``statements`` are the kinds of statements that each program has.
    """

    options: Options
    head: str
    programs: dict[str, str]
    statements: dict[str, frozenset[str]]

    @property
    def text(self) -> str:
        """All of it."""
        return "\n".join((self.head, *self.programs.values()))


def kinds_of_statements() -> frozenset[str]:
    """Return the names of all kinds of statements."""
    return frozenset(statement.__name__ for _weight, statement in _STATEMENTS)


def generate_source(seed: int, number: int, num_programs: int) -> Source:
    """Return object ``number`` of a seed, always the same one."""
    dice = Dice(f"{seed}/{number}")
    options = Options(dice.pick(("v3", "v3", "v4")), dice.pick(_OPTIMISATIONS), redirects=dice.chance(0.3))
    declared = declarations(dice, options)
    programs, statements = {}, {}
    for index in range(num_programs):
        # Each program has dice of its own, so that it is the same one however many there are.
        program = _Program(Dice(f"{seed}/{number}/{index}"), options, declared, index)
        programs[f"p{index}"] = program.text
        statements[f"p{index}"] = frozenset().union(*(writer.written for writer in program.writers))
    return Source(options, declared.text, programs, statements)


class _Program:
    """One program with its subprograms and callbacks: ``text``, and who wrote it."""

    def __init__(self, dice: Dice, options: Options, declared: Declarations, number: int) -> None:
        self.writers: list[Writer] = []
        self._new = partial(Writer, dice, options, declared, number, _STATEMENTS)
        self.text = self._written(dice, declared, number)

    def _writer(self) -> Writer:
        self.writers.append(self._new())
        return self.writers[-1]

    def _written(self, dice: Dice, declared: Declarations, number: int) -> str:
        parts: list[str] = []
        callbacks = tuple(f"p{number}_step{index}" for index in range(dice.below(3)))
        for name in callbacks:
            parts += _callback(self._writer(), name)
        element_callbacks: tuple[ElementCallback, ...] = ()
        for index in range(dice.pick((0, 0, 1, 2))):
            element_callback, lines = _element_callback(self._writer(), f"p{number}_each{index}")
            element_callbacks += (element_callback,)
            parts += lines
        memory_callees = tuple(f"p{number}_memory{index}" for index in range(dice.pick((0, 0, 1))))
        for name in memory_callees:
            parts += _memory_subprogram(self._writer(), name)
        callees: tuple[Callee, ...] = ()
        for index in range(dice.pick((0, 0, 1, 2))):
            callee, lines = _subprogram(self._writer(), f"p{number}_part{index}", callees, callbacks)
            callees += (callee,)
            parts += lines
        writer = self._writer()
        # With subprograms tail calls leave half of the stack.
        place = Place(
            _values(declared), callees, callbacks, memory_callees, element_callbacks, can_throw=dice.chance(0.4)
        )
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


def _element_callback(writer: Writer, name: str) -> tuple[ElementCallback, list[str]]:
    """Return a callback for the elements of an array, or of a hash map, which come in any order."""
    dice = writer.dice
    used = dice.pick([one for one in writer.declared.maps if one.type != "LPM_TRIE"])
    members = [(f"element->{member}", kind) for member, kind in used.value.members[:3]]
    keys = ["key->one", "key->other"] if used.key == "struct flow" else ["*key"]
    place = Place(
        Values(["constant", *keys, "state->limit", *(member for member, _kind in members)]),
        held=frozenset({used.name}),
        can_move=False,
        has_context=False,
        can_tail_call=False,
        nesting=1,
    )
    if used.moves:
        # Sums of what does not depend on other elements.
        moves = dice.chance(0.3)
        for target in dice.some(("state->sum", "state->count", *(member for member, _kind in members)), 3):
            writer.line(f"{target} {dice.pick(('+=', '^='))} {writer.expression(place)};")
        if moves:
            with writer.block(f"if ({writer.condition(place)})"):
                writer.line(f"state->count += bpf_map_delete_elem(&{used.name}, key);")
        writer.line("return 0;")
    else:
        moves = False
        place.values.readable += ["state->sum", "state->count"]
        place.values.assignable += [("state->sum", "__u64"), ("state->count", "__u32"), *members]
        writer.locals(place, 1)
        writer.statements(place, writer.few())
        writer.line(f"return {writer.condition(place)} ? 1 : 0;" if dice.chance(0.5) else "return 0;")
    head = (
        f"static long {name}(struct bpf_map *map, const {used.key} *key, struct {used.value.name} *element, "
        "struct state *state)"
    )
    return ElementCallback(name, used.name, moves), [head, "{", *writer.lines, "}", ""]


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
    moves, throws = dice.chance(0.5), dice.chance(0.3)
    place = Place(
        _values(writer.declared),
        callees,
        callbacks,
        can_move=moves,
        can_tail_call=False,
        can_throw=throws,
        nesting=1,
    )
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
    moves, throws = (moves or any(one.moves for one in callees)), (throws or any(one.throws for one in callees))
    return Callee(name, kinds, moves, throws), [head, "{", *writer.lines, "}", ""]
