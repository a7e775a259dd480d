"""The queues of a service: sockets, injectors and the memory that outlives a data process.

The control process makes all of this and holds every descriptor. Data processes are forked from it, so memory and
descriptors are at the same places there; one that ends leaves everything for the next one. What a queue's thread works
with is a struct uxdp_queue (native/ports/af_xdp.h), of which each data process has its own copy.
"""

import ctypes
import errno
import mmap
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final, Self

from ..abi import HEADROOM
from ..errors import PortError
from ..native_module import NativeModule
from ..ports.af_xdp import RingSizes, XdpSocket
from ..ports.af_xdp_abi import INJECTED_BYTES, TX_METHODS, WHOLE_BYTES, Queue
from ..ports.attachment import Attachment
from ..ports.injector import Injector
from ..ports.interface import Interface
from .port import LINK_BYTES, QueuePlan, ServedQueue
from .sample_ring import SampleRing
from .umem import Umem

# Behind a frame the kernel keeps struct skb_shared_info; programs must not grow frames into that.
# SKB_DATA_ALIGN(sizeof(struct skb_shared_info)) on 64-bit machines
TAIL_BYTES: Final = 320
_UNSUPPORTED: Final = (95, 524)  # EOPNOTSUPP, ENOTSUPP


def plan_queues(
    interfaces: Sequence[Interface], queues: Sequence[int] | None, cpus: Sequence[int]
) -> tuple[QueuePlan, ...]:
    """Give every queue a worker and a CPU, in turn.

    :param queues: which of each interface's; None: all
    :raises PortError: EINVAL if an interface has no such queue
    """
    plans: list[QueuePlan] = []
    for target in interfaces:
        for queue_id in range(target.num_rx_queues) if queues is None else queues:
            if queue_id >= target.num_rx_queues:
                raise PortError(
                    22,
                    f"no RX queue {queue_id}: it has {target.num_rx_queues}",
                    context=target.name,
                    remedy="see ethtool -l",
                )
            worker = len(plans)
            plans.append(QueuePlan(target, queue_id, worker, cpus[worker % len(cpus)]))
    return tuple(plans)


def needed_frame_bytes(mtu: int) -> int:
    """Return the length of the longest frame of an interface."""
    return mtu + LINK_BYTES


def longest_frame_bytes(chunk_bytes: int) -> int:
    """Return the longest frame that can be received into one chunk, behind the headroom, and passed or redirected."""
    return min(chunk_bytes - HEADROOM, INJECTED_BYTES)


def check_mtu(target: Interface, chunk_bytes: int, *, multi_buffer: bool) -> None:
    """Refuse an interface whose frames do not fit chunks, unless the program takes frames of several buffers.

    :raises PortError: EMSGSIZE
    """
    longest = longest_frame_bytes(chunk_bytes)
    if multi_buffer or needed_frame_bytes(target.mtu) <= longest:
        return
    mtu = longest - LINK_BYTES
    raise PortError(
        errno.EMSGSIZE,
        f"an MTU of {target.mtu} does not fit chunks of {chunk_bytes} bytes: at most {mtu}",
        context=target.name,
        remedy=f'ip link set dev {target.name} mtu {mtu}, or write the program for several buffers: SEC("xdp.frags")',
    )


class XskQueue(ServedQueue):
    """One queue: its socket, injector and state. Made by ``Queues``, closed with it."""

    def __init__(
        self,
        plan: QueuePlan,
        xdp_socket: XdpSocket,
        injector: Injector | None,
        umem: Umem,
        num_chunks: int,
        chunk_bytes: int,
    ) -> None:
        super().__init__(plan, num_chunks)
        self.umem = umem
        self.first_chunk = umem.take(num_chunks * chunk_bytes)
        self.socket = xdp_socket
        self.injector = injector
        self.rings = xdp_socket.map_rings()
        self.copy_reason = ""  # why frames are copied; "": they are not
        self.asks_hardware = False  # whether what the driver knows of a frame comes in front of it

    @property
    def zero_copy(self) -> bool:
        """Whether the driver writes frames into the UMEM itself."""
        return not self.copy_reason

    def waiting(self) -> int:
        """Return how many received frames wait in the RX ring."""
        rx = self.rings[0]
        producer, consumer = (ctypes.c_uint32.from_address(place).value for place in (rx.producer, rx.consumer))
        return (producer - consumer) & 0xFFFFFFFF


class Queues:
    """All queues of a service. Close it, or use it as a context manager."""

    def __init__(
        self,
        plans: Sequence[QueuePlan],
        attachments: Sequence[Attachment],
        *,
        num_chunks: int,
        chunk_bytes: int,
        tx: str,
        busy_poll: bool,
        multi_buffer: bool = False,
        sample_every: int = 0,
    ) -> None:
        """Register the UMEM, bind a socket to each queue and let the interfaces' programs know them.

        :param num_chunks: of each queue
        :param multi_buffer: whether the program takes frames of several buffers
        :param sample_every: copy one of so many frames of each queue; 0: none
        :raises PortError: a queue cannot be had; ``context`` is the interface
        """
        self._chunk_bytes = chunk_bytes
        self._num_chunks = num_chunks
        self._tx = TX_METHODS.index(tx)
        self._busy_poll = busy_poll
        self._wholes = [mmap.mmap(-1, WHOLE_BYTES) for _plan in plans] if multi_buffer else []
        self._attachments = tuple(attachments)
        self.queues: list[XskQueue] = []
        by_interface = {attachment.interface.index: attachment for attachment in attachments}
        with ExitStack() as stack:
            per_node = Counter(plan.interface.numa_node for plan in plans)
            umems = {node: Umem(count * num_chunks * chunk_bytes, node) for node, count in per_node.items()}
            self._umems = tuple(umems.values())
            self.has_huge_pages = all(umem.has_huge_pages for umem in umems.values())
            sizes = RingSizes(fill=_power_of_two(num_chunks), completion=_power_of_two(num_chunks))
            firsts: dict[int, XdpSocket] = {}  # by node: whom the others share its area with
            for plan in plans:
                umem = umems[plan.interface.numa_node]
                first = firsts.get(umem.numa_node)
                attachment = by_interface[plan.interface.index]
                xdp_socket = stack.enter_context(XdpSocket(sizes))
                try:
                    if first is None:
                        xdp_socket.register_umem(umem.address, umem.size_bytes, chunk_bytes)
                    xdp_socket.make_rings()
                    copy_reason = _bind(xdp_socket, plan, first, attachment, multi_buffer=multi_buffer)
                    if busy_poll:
                        xdp_socket.prefer_busy_poll()
                except PortError as error:
                    error.context = error.context or plan.interface.name
                    raise
                injector = stack.enter_context(Injector(bypass=attachment.bypass if attachment.is_generic else None))
                queue = XskQueue(plan, xdp_socket, injector, umem, num_chunks, chunk_bytes)
                queue.copy_reason = copy_reason
                queue.asks_hardware = attachment.asks_hardware
                queue.samples = SampleRing(sample_every) if sample_every else None
                self.queues.append(queue)
                attachment.set_socket(plan.queue_id, xdp_socket.fd)
                firsts.setdefault(umem.numa_node, xdp_socket)
            self._resources = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the sockets and injectors; the queues are free again some 25 ms later."""
        self._resources.close()

    def populate(self) -> None:
        """Map all memory of frames, in a process that will work with it."""
        for umem in self._umems:
            umem.populate()

    def descriptors(self) -> set[int]:
        """Return the descriptors that a data process must keep: with them, service goes on without anybody else."""
        kept = {attachment.link for attachment in self._attachments}
        for queue in self.queues:
            kept.add(queue.socket.fd)
            if queue.injector is not None:
                kept.update(queue.injector.descriptors)
        return kept

    def descriptor(self, queue: XskQueue, module: NativeModule, wake_fd: int) -> tuple[Queue, object]:
        """Return what the thread of a queue works with, and what must live as long.

        :param module: the program's code for the queue's worker
        :param wake_fd: an eventfd that ends the thread's sleep
        """
        free = (ctypes.c_uint64 * self._num_chunks)()
        rx, tx, fill, completion = queue.rings
        return (
            Queue(
                rx=rx,
                tx=tx,
                fill=fill,
                completion=completion,
                state=ctypes.addressof(queue.state),
                umem=queue.umem.address,
                first_chunk=queue.first_chunk,
                chunk_bytes=self._chunk_bytes,
                free=ctypes.addressof(free),
                fd=queue.socket.fd,
                wake_fd=wake_fd,
                inject_fd=queue.injector.fd if queue.injector is not None else -1,
                slots=queue.injector.slots_address if queue.injector is not None else 0,
                cursor=queue.injector.cursor_address if queue.injector is not None else 0,
                transmitted=queue.injector.transmissions_address if queue.injector is not None else 0,
                ifindex=queue.plan.interface.index,
                queue_id=queue.plan.queue_id,
                tx_method=self._tx,
                busy_poll=self._busy_poll,
                tail_bytes=TAIL_BYTES,
                sample_in=queue.samples.state.every if queue.samples is not None else 0,
                samples=queue.samples.address if queue.samples is not None else 0,
                whole=_address(self._wholes[queue.plan.worker]) if self._wholes else 0,
                maps=ctypes.addressof(module.maps),
                num_maps=len(module.maps),
                run=module.run_address,
                next_timer_ns=module.next_timer_address,
                asking=ctypes.addressof(module.worker) if queue.asks_hardware else 0,
            ),
            (free, module),
        )


def _bind(
    xdp_socket: XdpSocket, plan: QueuePlan, first: XdpSocket | None, attachment: Attachment, *, multi_buffer: bool
) -> str:
    """Bind, with zero-copy if the driver has it; return why frames are copied, or "" if they are not."""
    where = (plan.interface.index, plan.queue_id)
    reason = "generic XDP has no zero-copy" if attachment.is_generic else "the driver has no zero-copy"
    if first is not None:
        xdp_socket.bind(*where, shared_fd=first.fd)
        return "" if xdp_socket.is_zero_copy() else reason
    if not attachment.is_generic:
        try:
            xdp_socket.bind(*where, zero_copy=True, multi_buffer=multi_buffer)
        except PortError as refused:
            if refused.errno not in _UNSUPPORTED:
                raise
        else:
            return ""
    xdp_socket.bind(*where, multi_buffer=multi_buffer)
    return reason


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()


def _address(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))
