// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * data_sections: global data of every kind.
 *
 * Which of it can be set before loading (parameters) and mapped by libbpf's users depends on
 * linkage and visibility.
 */
#include <stdbool.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

enum colour { RED = 1, BLUE = -2 };
enum { BIG = 0x100000000ULL };

struct box {
	__u16 width;
	__u8 depth[3];
};

const volatile bool enabled = true;
const volatile __s8 negative = -5;
const volatile __u64 large = ~0ULL;
const volatile enum colour colour = BLUE;
const volatile struct box boxes[2] = {{1, {2, 3, 4}}, {5}};
const volatile char name[8] = "eth0";
const volatile struct box *const volatile pointer = 0;
const volatile __u32 hidden_constant __attribute__((visibility("hidden"))) = 1;
static const volatile __u32 static_constant = 2;
const volatile __u32 custom_constant SEC(".rodata.custom") = 3;
static const volatile __u32 custom_static SEC(".rodata.static") = 4;

__u64 initialised = 1;
static volatile __u64 static_counter;
__u32 custom_data SEC(".data.custom") = 2;
__u32 hidden_data SEC(".data.hidden") __attribute__((visibility("hidden"))) = 2;
__u64 zeroed;

extern int LINUX_KERNEL_VERSION __kconfig;
extern bool LINUX_HAS_SYSCALL_WRAPPER __kconfig __weak;
extern int absent_variable __ksym __weak;
extern void absent_kfunc(void) __ksym __weak;

SEC("xdp")
int use(struct xdp_md *ctx)
{
	__u64 sum = enabled + negative + large + colour + boxes[1].width + name[0] + (pointer == 0);

	sum += hidden_constant + static_constant + custom_constant + custom_static;
	sum += initialised++ + static_counter++ + custom_data++ + hidden_data++ + zeroed++;
	sum += LINUX_KERNEL_VERSION + LINUX_HAS_SYSCALL_WRAPPER + (&absent_variable != 0);
	if (absent_kfunc)
		absent_kfunc();
	return bpf_strncmp((const char *)name, sizeof(name), "eth0") ? sum & 1 : XDP_PASS;
}

char _license[] SEC("license") = "Dual MIT/GPL";
