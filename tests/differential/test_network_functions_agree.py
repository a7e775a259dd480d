"""Network functions as they are in service do natively what they do in the kernel, and what they are for.

Each has a conversation (network_functions/), whose frames are run one by one, with the verdict that each must get.
Then come the same frames again, damaged ones and generated ones, mixed and in bursts.
"""

import itertools
import random
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.bound_bundles import bound_image
from tests.differential.network_functions.balancer import BALANCER, DECAP
from tests.differential.network_functions.conversation import SOURCES, NetworkFunction
from tests.differential.network_functions.dispatcher import DISPATCHER, DISPATCHER_SHORT
from tests.differential.network_functions.dns_limiter import DNS_LIMITER
from tests.differential.network_functions.filter import FILTER
from tests.differential.network_functions.nat64 import NAT64
from tests.differential.network_functions.router import ROUTER, ROUTER_STRICT
from tests.differential.network_functions.syn_proxy import SYN_PROXY, SYN_PROXY_TIMESTAMPS
from tests.differential.network_functions.telemetry import TELEMETRY
from uxdp_cc.build import BuildRequest, build
from uxdp_runtime.compile.compiler import Target
from uxdp_runtime.compile.program import compile_program
from uxdp_runtime.differential import Differential, native_cpus
from uxdp_runtime.frames.constants import constants_of, keys_of
from uxdp_runtime.frames.generate import Frame, generate
from uxdp_runtime.map_file import read_map_file
from uxdp_runtime.outcomes import verdict_name
from uxdp_runtime.stores import ControlLibrary
from uxdp_runtime.verify import verify

pytestmark = pytest.mark.kernel

MIXED_FRAMES = 1500
SEED = 64
NETWORK_FUNCTIONS = {
    "balancer": BALANCER,
    "balancer_decap": DECAP,
    "dispatcher": DISPATCHER,
    "dispatcher_short": DISPATCHER_SHORT,
    "dns_limiter": DNS_LIMITER,
    "filter": FILTER,
    "nat64": NAT64,
    "router": ROUTER,
    "router_strict": ROUTER_STRICT,
    "syn_proxy": SYN_PROXY,
    "syn_proxy_timestamps": SYN_PROXY_TIMESTAMPS,
    "telemetry": TELEMETRY,
}


@pytest.mark.parametrize("name", NETWORK_FUNCTIONS)
def test_network_function_agrees_with_the_kernel(
    kernel: None, target: Target, control: ControlLibrary, name: str
) -> None:
    function = NETWORK_FUNCTIONS[name]
    image = build(BuildRequest(function.sources, function.clang_args, cwd=SOURCES)).bundle
    with (
        bound_image(image, path=f"{name}.uxdp") as bound,
        function.environment(),
        verify(bound, params=function.params) as verified,
    ):
        compiled = compile_program(verified, function.entry, target, num_cpus=native_cpus(), cache_directory=None)
        contents = read_map_file(bytes(bound.authentic.bundle.object), None, function.settings)
        with Differential(compiled, control) as sides:
            sides.fill(contents)
            frames = _converse(function, sides)
            steering = {*constants_of(bound.authentic.bundle.object), *keys_of(bound.facts.maps, contents)}
            verdicts: Counter[str] = Counter()
            mixed = _mixed(frames, generate(MIXED_FRAMES, SEED, {*steering, *function.constants}))
            for frame, outcome, difference in sides.run(mixed):
                assert difference is None, f"{frame.description}: {difference}"
                verdicts[verdict_name(outcome.verdict)] += 1
            assert list(itertools.islice(sides.map_differences(), 3)) == []
            assert bool(sides.left_out) is function.by_chance
            assert bool(sides.targets_not_compared) is function.targets_unknown
        assert verdicts.keys() >= function.verdicts, verdicts
        assert min(verdicts[verdict] for verdict in function.verdicts) > MIXED_FRAMES // 50, verdicts
        counters = verified.maps[function.counters]
        for key, value in counters.items():
            number = int.from_bytes(key, "little")
            total = sum(int.from_bytes(slot[:8], "little") for slot in counters.split_slots(value))
            assert (total > 0) is (number not in function.not_counted), f"counter {number}: {total}"


def _converse(function: NetworkFunction, sides: Differential) -> list[list[bytes]]:
    """Run the conversation frame by frame; return its frames, those of one name together."""
    frames: dict[str, list[bytes]] = {}
    conversation = function.conversation()
    sent = next(conversation)
    while True:
        frames.setdefault(sent.name, []).append(sent.data)
        ((_frame, outcome, difference),) = sides.run([Frame(sent.data, description=sent.name)])
        assert difference is None, f"{sent.name}: {difference}"
        assert verdict_name(outcome.verdict) in sent.verdict.split(" or "), f"{sent.name}, {len(frames[sent.name])}"
        try:
            sent = conversation.send(outcome.data)
        except StopIteration:
            return list(frames.values())


def _mixed(frames: list[list[bytes]], generated: Iterator[Frame]) -> Iterator[Frame]:
    """Yield generated frames and those of the conversation, as they are and damaged."""
    dice = random.Random(SEED)  # equal runs
    for other in generated:
        form = dice.randrange(8)
        if form < 3:
            yield other
            continue
        data = bytearray(dice.choice(dice.choice(frames)))
        if form == 3:
            del data[dice.randrange(14, len(data)) :]
        elif form == 4:
            data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        elif form == 5:
            data[dice.randrange(12, min(64, len(data)))] = dice.choice((0, 1, 0x7F, 0xFF, dice.randrange(256)))
        yield Frame(bytes(data), description=("sent", "cut", "flipped", "changed")[max(0, form - 2) % 4])
