"""Replay: run a program natively on captured frames, without any interface.

The only place where code may run that the kernel has not verified (``unverified=True``), because the process that runs
it is the user's own and holds nothing but the capture. Frames are run in bursts, as they would come from a queue.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Final

from uxdp_bundle.binding import BoundBundle
from uxdp_bundle.bpf_object import BpfObject

from .bpf.constants import encode_constants
from .compile.compiler import ProgramSource, Target, compile_object
from .compile.program import CompiledProgram, compile_program, program_source
from .frames.generate import Frame
from .kernel_state import kernel_state_for, refuse_questions
from .native_module import FrameBatch, FrameResult, NativeModule
from .stores import ControlLibrary, Stores
from .verify import VerifiedObject

BURST_FRAMES: Final = 256


class Replay:
    """One program with plain memory for its maps, to run frames through."""

    def __init__(
        self,
        source: ProgramSource,
        data: bytes,
        control: ControlLibrary,
        *,
        compiled: CompiledProgram | None = None,
        seed: int = 1,
    ) -> None:
        """Load native code and make its maps; see ``replay_verified`` and ``replay_unverified``.

        :param compiled: what the code is of, if the kernel has verified it
        """
        self.compiled = compiled
        self.stores = Stores(source.object, source.maps, source.num_cpus, control)
        self.stores.link_programs(source.object, source.programs)
        self._kernel = kernel_state_for(data, compiled.helpers) if compiled is not None else None
        self._module = NativeModule(data, self.stores, 0, seed=seed, kernel=self._kernel, runs_onward=True)
        self._batch = FrameBatch(BURST_FRAMES)
        self.verdicts: Counter[int] = Counter()
        self._rings = [store for store in self.stores if store.definition.type == "ringbuf"]
        self._rings += [
            ring for store in self.stores if store.definition.type == "perf_event_array" for ring in store.perf_rings()
        ]
        self.records: Counter[str] = Counter({ring.definition.name: 0 for ring in self._rings})

    def run(self, frames: Iterable[Frame]) -> Iterator[tuple[Frame, FrameResult]]:
        """Run frames in bursts; yield each with what became of it, in their order.

        Ring buffers are emptied after each burst; ``records`` counts what was in them, by map.
        """
        waiting = iter(frames)
        while burst := list(islice(waiting, BURST_FRAMES)):
            for index, frame in enumerate(burst):
                self._batch.put(
                    index,
                    frame.data,
                    metadata=frame.metadata,
                    ifindex=frame.ingress_ifindex,
                    queue=frame.rx_queue_index,
                )
            if self._kernel is not None:
                self._kernel.forget()  # what was answered to the burst before
            self._module.run(self._batch, len(burst))
            for ring in self._rings:
                self.records[ring.definition.name] += len(ring.consume_records())
            for index, frame in enumerate(burst):
                result = self._batch.result(index)
                self.verdicts[result.verdict] += 1
                yield frame, result


def replay_verified(
    verified: VerifiedObject, program: str, target: Target | None, control: ControlLibrary, cache_directory: Path | None
) -> Replay:
    """Return a replay of a program that the kernel has verified.

    :param target: None: this machine
    """
    compiled = compile_program(verified, program, target, num_cpus=1, cache_directory=cache_directory)
    return Replay(compiled.source, compiled.native.data, control, compiled=compiled)


def replay_unverified(
    bound: BoundBundle,
    program: str,
    target: Target,
    control: ControlLibrary,
    *,
    params: Mapping[str, int | bytes] = MappingProxyType({}),
) -> Replay:
    """Return a replay of a program that no kernel has verified; CO-RE values are those that the compiler assumed.

    :param params: new values of constants, as for ``verify``
    :raises ParameterError: no such constant, or a value that does not fit
    """
    obj = BpfObject(bytes(bound.authentic.bundle.object))
    constants = {item.name: item.data for item in encode_constants(obj, bound.facts.params, params)}
    source = program_source(bound, program, num_cpus=1, values=None, constants=constants)
    data = compile_object(source, target).data
    refuse_questions(data, {name for fact in bound.facts.programs for name in fact.helpers})
    return Replay(source, data, control)
