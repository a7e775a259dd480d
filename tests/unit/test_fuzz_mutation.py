"""Inputs of inputs: always valid, equal for equal seeds, and made of what the program compares and keeps."""

from tests.bound_bundles import bound_case
from uxdp_bundle.manifest import MapDefinition
from uxdp_runtime.frames.constants import Steering
from uxdp_runtime.frames.generate import Frame, generate
from uxdp_runtime.frames.layers import layers_of
from uxdp_runtime.frames.mutate import Dice
from uxdp_runtime.fuzz.mutation import MAX_STEPS, Mutator
from uxdp_runtime.steps import MapChange, Step
from uxdp_runtime.stores import Stores, control_library

KEY = b"\x0a\0"


def mutator(seed: int, maps: tuple[MapDefinition, ...]) -> Mutator:
    return Mutator(Dice(seed), Steering([0x1234567, b"\xc0\0\2\1"]), maps, {"policies": [(KEY, bytes(8))]})


def inputs(seed: int, count: int) -> list[list[Step]]:
    with bound_case("fuzz_target") as bound:
        obj, maps = bytes(bound.authentic.bundle.object), bound.facts.maps
    stores = Stores(obj, maps, 1, control_library())
    made = mutator(seed, maps)
    corpus: list[list[Step]] = [[frame] for frame in generate(20, seed)]
    for number in range(count):
        corpus.append(made.mutate(corpus[-1 - number % 7], corpus[number % 20], stores))
    return corpus[20:]


def test_mutate_gives_inputs_that_can_be_run() -> None:
    found = inputs(1, 3000)
    changes: set[tuple[str, bool]] = set()
    keys = set()
    for steps in found:
        assert 1 <= len(steps) <= MAX_STEPS
        for step in steps:
            if isinstance(step, Frame):
                assert 14 <= len(step.data) <= 1514
                assert len(step.metadata) in range(0, 33, 4)
            else:
                sizes = {"policies": (2, 8), "unrelated": (4, 8)}[step.map]
                assert len(step.key) == sizes[0]
                assert step.value is None or len(step.value) == sizes[1]
                changes.add((step.map, step.value is None))
                keys.add(step.key)
    assert changes == {(name, deleted) for name in ("policies", "unrelated") for deleted in (True, False)}
    assert KEY in keys
    assert b"\x08\0" in keys  # what frames have at that place


def test_mutate_of_equal_seeds_is_equal() -> None:
    assert inputs(5, 200) == inputs(5, 200)
    assert inputs(5, 200) != inputs(6, 200)


def test_solve_puts_what_was_compared_in_the_place_of_what_was_there() -> None:
    made = mutator(1, ())
    data = bytes(12) + b"\x08\0" + (77777).to_bytes(4, "little") + bytes(40)
    change = MapChange("policies", KEY, None)
    solved = list(made.solve([change, Frame(data)], [(77777, 0xABCDEF01), (3, 4), (99999999, 5)]))
    assert all(steps[0] == change for steps in solved)
    words = {steps[1].data[14:18] for steps in solved if isinstance(steps[1], Frame)}
    near = {number.to_bytes(4, "little") for number in range(0xABCDEF00, 0xABCDEF03)}
    assert words & near
    assert all(len(steps[1].data) == len(data) for steps in solved if isinstance(steps[1], Frame))


def test_layers_are_those_that_frames_were_made_of() -> None:
    found = set()
    for frame in generate(500, 3):
        layers = layers_of(frame.data)
        assert layers[0] == ("eth", 0)
        assert all(0 <= offset < len(frame.data) for _name, offset in layers)
        assert [offset for _name, offset in layers] == sorted(offset for _name, offset in layers)
        found |= {name for name, _offset in layers}
        if frame.description.count(",") == 2 and frame.description.startswith("ipv4 tcp syn, flow"):
            assert layers[1:3] == [("ipv4", 14), ("tcp", 34)]
    assert found == {"eth", "vlan", "arp", "ipv4", "ipv6", "ext", "tcp", "udp", "icmp", "gre", "payload"}
