"""Why kfuncs that XDP programs may call have no native implementation.

SUPPORT.md says the same; a test holds both against the native library and against the running kernel.
"""

from typing import Final

_REASONS: Final = {
    "native code has no tasks and cgroups": """
        bpf_cgroup_acquire bpf_cgroup_ancestor bpf_cgroup_from_id bpf_cgroup_read_xattr bpf_cgroup_release
        bpf_iter_css_destroy bpf_iter_css_new bpf_iter_css_next bpf_iter_css_task_destroy bpf_iter_css_task_next
        bpf_iter_task_destroy bpf_iter_task_new bpf_iter_task_next
        bpf_iter_task_vma_destroy bpf_iter_task_vma_new bpf_iter_task_vma_next
        bpf_send_signal_task bpf_task_acquire bpf_task_from_pid bpf_task_from_vpid bpf_task_get_cgroup1
        bpf_task_release bpf_task_under_cgroup bpf_task_work_schedule_resume_impl bpf_task_work_schedule_signal_impl
    """,
    "native code cannot reach the kernel's connection tracking": """
        bpf_ct_change_status bpf_ct_change_timeout bpf_ct_insert_entry bpf_ct_release bpf_ct_set_nat_info
        bpf_ct_set_status bpf_ct_set_timeout bpf_xdp_ct_alloc bpf_xdp_ct_lookup
    """,
    "native code cannot reach the kernel's flow tables": "bpf_xdp_flow_lookup",
    "native code cannot reach the kernel's IPsec states": "bpf_xdp_get_xfrm_state bpf_xdp_xfrm_state_release",
    "native code cannot reach keys that the kernel holds": """
        bpf_crypto_decrypt bpf_crypto_encrypt bpf_key_put bpf_lookup_system_key
    """,
    "an XDP program has no skb to give it": "bpf_skb_ct_alloc bpf_skb_ct_lookup",
    "native code has no memory of the kernel": "bpf_get_kmem_cache bpf_rdonly_cast bpf_cast_to_kern_ctx",
    "it reads the memory of a task, and native code runs for none": """
        bpf_probe_read_user_dynptr bpf_probe_read_user_str_dynptr
    """,
    "native code keeps no objects that programs allocate": """
        bpf_list_back bpf_list_front bpf_list_pop_back bpf_list_pop_front bpf_list_push_back_impl
        bpf_list_push_front_impl bpf_obj_drop_impl bpf_obj_new_impl bpf_percpu_obj_drop_impl bpf_percpu_obj_new_impl
        bpf_rbtree_add_impl bpf_rbtree_first bpf_rbtree_left bpf_rbtree_remove bpf_rbtree_right bpf_rbtree_root
        bpf_refcount_acquire_impl
    """,
    "native code has no place where a callback may sleep": "bpf_wq_init bpf_wq_set_callback_impl bpf_wq_start",
    "only a program that the kernel runs has streams": "bpf_stream_vprintk_impl",
    "it says whether it would wait in a circle, which native locks do not find out": """
        bpf_res_spin_lock bpf_res_spin_lock_irqsave bpf_res_spin_unlock bpf_res_spin_unlock_irqrestore
    """,
    "it is there for the kernel's own tests": "bpf_modify_return_test_tp",
}
UNSUPPORTED: Final = {name: reason for reason, names in _REASONS.items() for name in names.split()}


def reason_of(kfunc: str) -> str:
    """Return why native code has not got a kfunc, in a few words."""
    return UNSUPPORTED.get(kfunc, "kfunc without native implementation")
