"""What a native module is told of this machine."""

from uxdp_runtime.native_module import kernel_hz


def test_kernel_hz_is_one_that_kconfig_offers() -> None:
    # kernel/Kconfig.hz; USER_HZ, which is always 100 here, would be another clock's.
    assert kernel_hz() in (100, 250, 300, 1000)
