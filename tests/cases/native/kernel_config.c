// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* __kconfig: the kernel's version and configuration as libbpf reads them; what is not set is 0. */
#include "common.h"

extern int LINUX_KERNEL_VERSION __kconfig;
extern bool CONFIG_BPF_SYSCALL __kconfig;
extern int CONFIG_HZ __kconfig __weak;
extern int CONFIG_NO_SUCH_OPTION __kconfig __weak;

SEC("xdp")
int kernel_config(struct xdp_md *ctx)
{
	note(0, LINUX_KERNEL_VERSION);
	note(1, CONFIG_BPF_SYSCALL);
	note(2, CONFIG_HZ);
	note(3, CONFIG_NO_SUCH_OPTION);
	if (LINUX_KERNEL_VERSION < 0x50000)
		return XDP_ABORTED;
	return CONFIG_NO_SUCH_OPTION ? XDP_DROP : XDP_PASS;
}
