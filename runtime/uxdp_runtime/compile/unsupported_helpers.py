"""Why helpers that XDP programs may call have no native implementation, and will have none.

SUPPORT.md says the same; a test holds both against the native library.
"""

from typing import Final

_REASONS: Final = {
    "it tells of the task that a frame interrupts, and native code interrupts none": """
        bpf_get_current_pid_tgid bpf_get_current_uid_gid bpf_get_current_comm bpf_get_current_task
        bpf_get_current_task_btf bpf_get_ns_current_pid_tgid bpf_task_pt_regs bpf_get_task_stack bpf_find_vma
    """,
    "it tells of the cgroup of the task that a frame interrupts, and native code interrupts none": """
        bpf_get_cgroup_classid bpf_current_task_under_cgroup bpf_get_current_cgroup_id
        bpf_get_current_ancestor_cgroup_id
    """,
    "it signals the task that a frame interrupts, and native code interrupts none": """
        bpf_send_signal bpf_send_signal_thread
    """,
    "it reads the memory of the task that a frame interrupts, and native code interrupts none": """
        bpf_probe_read_user bpf_probe_read_user_str
    """,
    "native code has no tasks and cgroups to keep something for": """
        bpf_task_storage_get bpf_task_storage_delete bpf_cgrp_storage_get bpf_cgrp_storage_delete
    """,
    "it gives a struct of the kernel's own, whose memory native code cannot read": """
        bpf_skc_to_tcp6_sock bpf_skc_to_tcp_sock bpf_skc_to_tcp_timewait_sock bpf_skc_to_tcp_request_sock
        bpf_skc_to_udp6_sock bpf_skc_to_unix_sock bpf_skc_to_mptcp_sock
    """,
    "it prints structs of the kernel's own, whose memory native code cannot read": "bpf_snprintf_btf",
    "it leads to variables of the kernel's own, whose memory native code cannot read": """
        bpf_per_cpu_ptr bpf_this_cpu_ptr
    """,
    "it exchanges references to objects of the kernel's own, and native code has none": "bpf_kptr_xchg",
    "it reads counters of the CPU while the kernel runs a program on it": """
        bpf_perf_event_read bpf_perf_event_read_value
    """,
    "it tells what branches the kernel took": "bpf_get_branch_snapshot",
}

UNSUPPORTED: Final = {name: reason for reason, names in _REASONS.items() for name in names.split()}


def reason_of(helper: str) -> str:
    """Return why native code has no implementation of a helper."""
    return UNSUPPORTED.get(helper, "no native implementation")
