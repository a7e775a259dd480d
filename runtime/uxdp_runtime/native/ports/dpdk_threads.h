/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Capabilities belong to threads, and EAL and drivers have started some by the time that the data
 * process gives its own up. So each of them is sent a signal, whose handler gives up that thread's,
 * as the C library does it for setuid().
 *
 * References: capabilities(7), "Capabilities and threads"; nptl(7), "NPTL and signals"
 */
#ifndef UXDP_PORTS_DPDK_THREADS_H
#define UXDP_PORTS_DPDK_THREADS_H

#include <dirent.h>
#include <errno.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define UXDP_GIVE_UP_MS 2000u

static u32 threads_done;
static s32 threads_error;

static void give_up_here(int number)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct none[2] = {{0}};
	s32 before = errno;

	(void)number;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || syscall(SYS_capset, &header, none))
		__atomic_store_n(&threads_error, -errno, __ATOMIC_RELAXED);
	__atomic_fetch_add(&threads_done, 1, __ATOMIC_RELEASE);
	errno = before;
}

/* Drop all capabilities in all threads but the calling one; 0 or -errno. */
s32 uxdp_dpdk_give_up(void)
{
	struct sigaction action = {.sa_handler = give_up_here, .sa_flags = SA_RESTART};
	struct timespec pause = {.tv_nsec = 1000000};
	s32 signal_number = SIGRTMAX - 1;
	struct dirent *entry;
	u32 asked = 0;
	DIR *tasks;

	if (sigaction(signal_number, &action, NULL))
		return -errno;
	tasks = opendir("/proc/self/task");
	if (!tasks)
		return -errno;
	while ((entry = readdir(tasks))) {
		s32 thread = atoi(entry->d_name);

		if (thread > 0 && thread != syscall(SYS_gettid) &&
		    !syscall(SYS_tgkill, getpid(), thread, signal_number))
			asked++;
	}
	closedir(tasks);
	for (u32 i = 0; i < UXDP_GIVE_UP_MS; i++) {
		if (__atomic_load_n(&threads_done, __ATOMIC_ACQUIRE) == asked)
			return threads_error;
		nanosleep(&pause, NULL);
	}
	return -ETIMEDOUT;
}

#endif
