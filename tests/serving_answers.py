"""What a service answers to ``status`` and ``stats``, made up, for tests of those who read it."""

from typing import Any

from uxdp_runtime.ports.af_xdp import Statistics
from uxdp_runtime.ports.port_abi import LOSSES
from uxdp_runtime.serve.statistics import _COUNTERS, QueueCounters

VERDICT_FRAMES = (1, 20, 300, 4000, 0)


def queue_answer(frames: int, *, queue: int = 0, factor: int = 1) -> dict[str, Any]:
    """Return one queue's counters: every counter is a known multiple of factor."""
    latency = [0] * 32
    latency[10] = frames
    counters = QueueCounters(
        interface="eth0",
        queue_id=queue,
        zero_copy=False,
        rx_frames=frames,
        rx_bytes=frames * 100,
        verdict_frames=tuple(count * factor for count in VERDICT_FRAMES),
        verdict_bytes=tuple(count * factor * 100 for count in VERDICT_FRAMES),
        lost=tuple([7 * factor] + [0] * (len(LOSSES) - 1)),
        others=tuple(range(factor, factor + len(_COUNTERS))),
        latency=tuple(latency),
        kernel=Statistics(5 * factor, 0, 0, 0, 0, 0).as_counters(),
        rx_fill=3,
        rx_ring_size=2048,
        samples_taken=frames // 10,
        samples_missed=0,
    )
    return {**counters.as_json(), "busy_ns": frames * 250}


def stats_answer(time: float, *queues: dict[str, Any]) -> dict[str, Any]:
    asked = {"asked": 40, "failed": 2, "remembered": 960}
    return {"name": "edge", "time": time, "restarts": 2, "queues": list(queues), "kernel_questions": asked}


def port_answer(*, up: bool = True) -> dict[str, Any]:
    """Return what is known of a DPDK device with the queues' name."""
    counters = dict.fromkeys(("rx_frames", "tx_frames", "rx_bytes", "tx_bytes", "rx_errors", "tx_errors"), 0)
    return {
        "interface": "eth0",
        "link": {"up": up, "mbps": 10000, "full_duplex": True},
        "mbufs": 4096,
        "mbufs_free": 4000,
        "counters": {**counters, "rx_missed": 12, "rx_no_mbuf": 3},
        "xstats": {"rx_q0_packets": 99},
    }


def status_answer(*, serving: bool = True) -> dict[str, Any]:
    return {
        "name": "edge",
        "bundle": "/nf.uxdp",
        "bundle_id": "ab" * 32,
        "program": "xdp_main",
        "pid": 10,
        "data_pid": 11 if serving else None,
        "serving": serving,
        "restarts": 2,
        "started": 1000.0,
        "uptime_seconds": 3725.0,
        "interfaces": [{"name": "eth0", "ifindex": 2, "attached": "native", "queues": [{"queue": 0, "cpu": 0}]}],
    }


def kernel_answer(time: float, runs: int, *, program_id: int = 5) -> dict[str, Any]:
    """Return what the kernel mode answers to ``stats``."""
    counts = {"program_id": program_id, "runs": runs, "run_ns": runs * 40}
    return {"name": "edge", "time": time, "restarts": 0, "queues": [], "kernel": counts}
