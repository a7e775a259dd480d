"""The DPDK port of a service: devices that the kernel does not drive, polled by the data process.

EAL cannot be shared with a process that is forked, so each data process begins its own, before it is confined, and all
of it ends with that process. What is to stay is the control process's: counters, the compiled glue, and the TAP
interfaces that lead into the kernel's stack.
"""

import ctypes
import errno
import logging
import mmap
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Final

from ..abi import HEADROOM
from ..bpf.libbpf import attached_program, detach_program
from ..compile.cache import cache_directory
from ..compile.dpdk_glue import dpdk_glue
from ..errors import BpfError, PortError
from ..native_module import NativeModule
from ..ports.dpdk import (
    DpdkDevice,
    EalPlan,
    eal_error,
    free_huge_mib,
    kernel_ifindex,
    last_words,
    needed_mib,
    refusal_of_device,
)
from ..ports.dpdk import plan_eal as _plan_eal
from ..ports.dpdk_abi import POWERS, WHOLE_BYTES, DpdkPort, DpdkQueue, PortState
from ..ports.injector import Injector
from ..ports.interface import Interface
from ..ports.tap import Tap
from . import events
from .confinement import confine_dpdk
from .dpdk_plan import chunk_bytes_of, queues_of_each, stack_of, tap_name
from .loaded import Loaded
from .options import ServeOptions
from .port import LINK_BYTES, Loop, QueuePlan, ServedQueue
from .ports_library import ports_library
from .queues import TAIL_BYTES
from .sample_ring import SampleRing
from .statistics import QueueCounters, read_counters

_DEFAULT_MTU: Final = 1500
_UNKNOWN_SPEED: Final = 0xFFFFFFFF
_CPUMAP: Final = 16  # BPF_MAP_TYPE_CPUMAP
_STATISTICS: Final = (
    *("rx_frames", "tx_frames", "rx_bytes", "tx_bytes", "rx_missed", "rx_errors", "tx_errors", "rx_no_mbuf"),
)


class DpdkPortSet:
    """DPDK devices, each with as many RX queues as workers serve it."""

    def __init__(self, options: ServeOptions) -> None:
        """Plan the queues; devices are looked at by data processes only.

        :raises PortError: the options do not fit the devices
        :raises ParameterError: an ifindex that is given does not fit
        """
        self._options = options
        self._devices: tuple[DpdkDevice, ...] = options.dpdk
        ifindexes = options.device_ifindexes() or {}
        self._cpus = options.usable_cpus()
        self._num_queues = queues_of_each(options, len(self._devices))
        self._interfaces = [
            Interface(device.name, ifindexes[device.name], _DEFAULT_MTU, b"", True, self._num_queues)
            for device in self._devices
        ]
        self._plans = tuple(
            QueuePlan(target, queue_id, worker, self._cpus[worker % len(self._cpus)])
            for worker, (target, queue_id) in enumerate(
                (target, queue_id) for target in self._interfaces for queue_id in range(self._num_queues)
            )
        )
        self._queues: list[ServedQueue] = []
        self._states: list[PortState] = []
        self._wholes: list[mmap.mmap] = []
        self._memory: list[mmap.mmap] = []
        self._stacks = tuple(stack_of(device, options.stack) for device in self._devices)
        self._taps: dict[int, Tap] = {}
        self._injectors: list[Injector | None] = []
        self._facts: list[dict[str, Any]] = []
        self._links: list[bool | None] = [None] * len(self._devices)
        self._resources = ExitStack()
        self._multi_buffer = False
        self._glue_fd = self._log_fd = -1
        self._version = ""
        self._eal = EalPlan((), "")
        # Of the data process:
        self._library: ctypes.CDLL | None = None
        self._ports = (DpdkPort * len(self._devices))()
        self._rings = (ctypes.c_void_p * len(self._plans))()

    @property
    def num_workers(self) -> int:
        """How many queues are served."""
        return len(self._plans)

    @property
    def queues(self) -> Sequence[ServedQueue]:
        """The queues, by worker."""
        return self._queues

    @property
    def is_exclusive(self) -> bool:
        """EAL's devices belong to one process."""
        return True

    def check(self, loaded: Loaded) -> None:
        """Refuse buffers that an ordinary frame does not fit."""
        for device in self._devices:
            chunk_bytes = chunk_bytes_of(device, self._options)
            room = chunk_bytes - HEADROOM
            if room < _DEFAULT_MTU + LINK_BYTES and not loaded.takes_frags:
                raise PortError(errno.EMSGSIZE, f"chunks of {chunk_bytes} bytes hold {room}", context=device.name)

    def await_free(self) -> None:
        """A service that has ended has closed its devices before it said so."""

    def open(self, loaded: Loaded) -> None:
        """Compile the glue, make the ways into the kernel's stack, and plan EAL."""
        stack, options = self._resources, self._options
        glue, self._version = dpdk_glue(cache_directory())
        self._glue_fd = os.memfd_create("uxdp-dpdk.so", os.MFD_CLOEXEC)
        stack.callback(os.close, self._glue_fd)
        os.write(self._glue_fd, glue)
        self._log_fd = os.memfd_create("uxdp-dpdk-log", os.MFD_CLOEXEC)
        stack.callback(os.close, self._log_fd)
        self._multi_buffer = loaded.takes_frags
        for device in self._devices:
            if device.is_af_xdp and not attached_program(kernel_ifindex(device)):
                stack.callback(_detach, device)
        for plan in self._plans:
            queue = ServedQueue(plan)
            queue.samples = SampleRing(options.sample_every) if options.sample_every else None
            self._queues.append(queue)
            self._wholes += [mmap.mmap(-1, WHOLE_BYTES)] if self._multi_buffer else []
        for number, device in enumerate(self._devices):
            self._memory.append(mmap.mmap(-1, ctypes.sizeof(PortState)))  # shared with forked processes
            self._states.append(PortState.from_buffer(self._memory[-1]))
            if self._stacks[number] == "tap":
                self._taps[number] = stack.enter_context(Tap(tap_name(device), self._num_queues))
        for plan in self._plans:
            injected = self._stacks[self._number(plan)] == "netdev"
            self._injectors.append(stack.enter_context(Injector()) if injected else None)
        memory_mib = needed_mib(len(self._plans) * options.num_chunks, options.chunk_bytes)
        self._eal = _plan_eal(self._devices, self._cpus, memory_mib, options.eal, huge_mib=free_huge_mib())
        if self._eal.no_huge_reason:
            events.report(
                "no_huge_pages", f"DPDK uses usual pages: {self._eal.no_huge_reason}", reason=self._eal.no_huge_reason
            )
        if options.stack == "none":
            events.report(
                "no_stack", "frames with XDP_PASS are lost: --pass none", level=logging.WARNING, interfaces=self._names
            )

    def close(self) -> None:
        """Give up the ways into the stack; the devices went with the data process."""
        for device, state in zip(self._devices, self._states, strict=True):
            if state.closed:
                what = f"{device.name}: {state.mbufs_free} of {state.mbufs} buffers are back"
                is_well = state.mbufs_free == state.mbufs
                if device.is_af_xdp and not is_well:
                    what += "; its driver keeps what is in its rings"
                level = logging.INFO if is_well or device.is_af_xdp else logging.WARNING
                counts = {"mbufs": state.mbufs, "mbufs_free": state.mbufs_free}
                events.report("closed", what, level=level, interface=device.name, **counts)
        self._resources.close()

    def set_away(self, away: bool) -> None:
        """Nobody stands in while no data process serves: frames wait in the device, and then are lost."""

    def set_program(self, loaded: Loaded) -> None:
        """Nobody stands in."""

    def descriptors(self) -> set[int]:
        """Return the glue, the queues of TAP interfaces, and the injectors."""
        taps = (fd for tap in self._taps.values() for fd in tap.fds)
        injectors = (fd for injector in self._injectors if injector is not None for fd in injector.descriptors)
        return {self._glue_fd, self._log_fd, *taps, *injectors}

    def entered(self, facts: Mapping[str, Any]) -> None:
        """Take note of what the devices are; the first time, make the TAP interfaces alike."""
        is_first = not self._facts
        self._facts = list(facts["ports"])
        if not is_first:
            return
        for number, found in enumerate(self._facts):
            name = self._devices[number].name
            tap = self._taps.get(number)
            if tap is not None:
                tap.bring_up(bytes.fromhex(found["mac"].replace(":", "")), found["mtu"])
            into = self._stacks[number] if tap is None else tap.name
            events.report(
                "opened",
                f"{name}: {found['driver']}, ifindex {self._interfaces[number].index}, {found['mac']},"
                f" {_numbered(self._num_queues)}, XDP_PASS to {into}",
                interface=name,
                ifindex=self._interfaces[number].index,
                stack=into,
                **found,
            )

    def look(self) -> None:
        """See whether links go up or down."""
        for number, state in enumerate(self._states):
            is_up = bool(state.link_up)
            if not state.observed or self._links[number] == is_up:
                continue
            if self._links[number] is not None or not is_up:
                name, word = self._devices[number].name, "up" if is_up else "down"
                level = logging.INFO if is_up else logging.WARNING
                events.report(f"link_{word}", f"{name}: the link is {word}", level=level, interface=name)
            self._links[number] = is_up

    def counters(self) -> list[QueueCounters]:
        """Return all queues' counters."""
        return [read_counters(queue, zero_copy=True, kernel={}, rx_waiting=0, rx_ring_size=0) for queue in self.queues]

    def last_words(self) -> str:
        """Return the end of what DPDK wrote: it may have found that something cannot be, and ended."""
        said = _read(self._log_fd)
        return last_words(said) if "PANIC" in said or "Cause" in said else ""

    def facts(self) -> dict[str, Any]:
        """Return what each device is."""
        return {
            "huge_pages": not self._eal.no_huge_reason,
            "dpdk": self._version,
            "interfaces": [
                {
                    "name": target.name,
                    "ifindex": target.index,
                    "gone": False,
                    "attached": "dpdk",
                    "stack": self._taps[number].name if number in self._taps else self._stacks[number],
                    **(self._facts[number] if self._facts else {}),
                    "queues": [
                        {"queue": plan.queue_id, "cpu": plan.cpu, "zero_copy": True}
                        for plan in self._plans
                        if plan.interface is target
                    ],
                }
                for number, target in enumerate(self._interfaces)
            ],
        }

    def statistics(self) -> dict[str, Any]:
        """Return what the drivers count, the links, and what is free of the buffers."""
        return {
            "ports": [
                {
                    "interface": device.name,
                    "link": {
                        "up": bool(state.link_up),
                        "mbps": None if state.link_mbps == _UNKNOWN_SPEED else state.link_mbps,
                        "full_duplex": bool(state.link_full_duplex),
                    },
                    "mbufs": state.mbufs,
                    "mbufs_free": state.mbufs_free,
                    "counters": {name: getattr(state, name) for name in _STATISTICS},
                    "xstats": {
                        bytes(state.xstats[i].name).decode(errors="replace"): state.xstats[i].value
                        for i in range(min(state.num_xstats, len(state.xstats)))
                    },
                }
                for device, state in zip(self._devices, self._states, strict=True)
            ]
        }

    def enter(self) -> dict[str, Any]:
        """Begin EAL and open the devices."""
        library = self._library = ctypes.CDLL(f"/proc/self/fd/{self._glue_fd}")
        log_fd = self._log_fd
        os.ftruncate(log_fd, 0)
        os.lseek(log_fd, 0, os.SEEK_SET)
        words = [b"uxdp", *(argument.encode() for argument in self._eal.arguments)]
        arguments = (ctypes.c_char_p * (len(words) + 1))(*words)
        result = library.uxdp_dpdk_init(len(words), arguments, os.dup(log_fd))
        if result != 0:
            raise eal_error(-result, _read(log_fd), self._devices)
        options = self._options
        for number, port in enumerate(self._ports):
            port.name = self._devices[number].name.encode()
            port.num_queues = self._num_queues
            port.num_mbufs = self._num_queues * options.num_chunks
            port.chunk_bytes = chunk_bytes_of(self._devices[number], options)
            port.ifindex = self._interfaces[number].index
            port.kernel_ifindex = kernel_ifindex(self._devices[number])
            port.multi_buffer = self._multi_buffer
            port.rx_interrupts = options.power == "interrupt"
            port.is_alone = len(self._ports) == 1
            port.state = ctypes.addressof(self._states[number])
            result = library.uxdp_dpdk_open(ctypes.byref(port))
            if result != 0:
                said = bytes(port.error).decode(errors="replace")
                raise refusal_of_device(self._devices[number], -result, said, _read(log_fd))
        result = library.uxdp_dpdk_make_rings(self._rings, len(self._rings))
        if result != 0:
            raise PortError(-result, "no rings between workers", context=self._names[0])
        return {"ports": [_facts_of(port) for port in self._ports]}

    def confine(self) -> None:
        """Keep what polling devices needs, in all threads that EAL has made."""
        confine_dpdk(self._names, self._entered.uxdp_dpdk_give_up)

    def descriptor(
        self, queue: ServedQueue, module: NativeModule, wake_fd: int, *, asks_hardware: bool
    ) -> tuple[Any, object]:
        """Return a struct uxdp_dpdk_queue."""
        plan, library = queue.plan, ports_library()
        number = self._number(plan)
        injector = self._injectors[plan.worker]
        has_cpumap = any(table.kind == _CPUMAP for table in module.maps)
        return (
            DpdkQueue(
                state=ctypes.addressof(queue.state),
                samples=queue.samples.address if queue.samples is not None else 0,
                sample_in=queue.samples.state.every if queue.samples is not None else 0,
                maps=ctypes.addressof(module.maps),
                num_maps=len(module.maps),
                worker=ctypes.addressof(module.worker),
                ports=ctypes.addressof(self._ports),
                num_ports=len(self._ports),
                port=number,
                rings=ctypes.addressof(self._rings) if has_cpumap else 0,
                whole=_address(self._wholes[plan.worker]) if self._wholes else 0,
                run=module.run_address,
                run_mbufs=0 if asks_hardware or queue.samples is not None else module.run_mbufs_address,
                find_target=library.address("uxdp_find_target"),
                next_device=library.address("uxdp_next_device"),
                queue_id=plan.queue_id,
                number=plan.worker,
                num_workers=len(self._plans),
                tail_bytes=TAIL_BYTES,
                power=POWERS.index(self._options.power),
                wants_metadata=asks_hardware,
                asks_for_room=module.asks_for_room,
                is_written_elsewhere=self._devices[number].is_pci or self._devices[number].is_af_xdp,
                stack_fd=self._taps[number].fds[plan.queue_id] if number in self._taps else -1,
                inject_fd=injector.fd if injector is not None else -1,
                wake_fd=wake_fd,
                slots=injector.slots_address if injector is not None else 0,
                cursor=injector.cursor_address if injector is not None else 0,
                injected=injector.transmissions_address if injector is not None else 0,
            ),
            module,
        )

    def loop(self) -> tuple[Loop, Loop]:
        """Return uxdp_dpdk_recover and uxdp_dpdk_serve."""
        library = self._entered
        for function in (library.uxdp_dpdk_recover, library.uxdp_dpdk_serve):
            function.argtypes, function.restype = [ctypes.c_void_p], None
        return library.uxdp_dpdk_recover, library.uxdp_dpdk_serve

    def attend(self) -> None:
        """Write down what is to be seen of the devices."""
        for port in self._ports:
            self._entered.uxdp_dpdk_observe(ctypes.byref(port))

    def leave(self) -> None:
        """Close the devices, and count whether all buffers came back."""
        self._entered.uxdp_dpdk_close(self._ports, len(self._ports), self._rings, len(self._rings))

    @property
    def _entered(self) -> ctypes.CDLL:
        if self._library is None:
            raise PortError(errno.EBADF, "is not open", context=self._names[0])
        return self._library

    def _number(self, plan: QueuePlan) -> int:
        """Return which of the devices a queue is of."""
        return self._interfaces.index(plan.interface)

    @property
    def _names(self) -> list[str]:
        return [device.name for device in self._devices]


def _detach(device: DpdkDevice) -> None:
    """Detach the program that net_af_xdp leaves: the data process may no longer do that."""
    index = kernel_ifindex(device)
    try:
        if index and attached_program(index):
            detach_program(index)
    except BpfError as refused:
        events.report(
            "not_detached",
            f"{device.name}: its driver's XDP program stays attached: {refused}",
            level=logging.WARNING,
            interface=device.name,
        )


def _facts_of(port: DpdkPort) -> dict[str, Any]:
    return {
        "driver": bytes(port.driver).decode(errors="replace"),
        "mac": bytes(port.mac[:6]).hex(":"),
        "mtu": port.mtu,
        "numa_node": port.socket,
        "descriptors": port.num_descriptors,
        "kernel_ifindex": port.kernel_ifindex,
    }


def _numbered(count: int) -> str:
    return f"{count} queue{'s' if count != 1 else ''}"


def _read(fd: int) -> str:
    return os.pread(fd, 1 << 16, 0).decode(errors="replace")


def _address(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))
