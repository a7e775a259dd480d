/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * How long a cache line takes from one CPU to another and back, in ns.
 *
 *	apart CPU CPU
 *
 * On a virtual machine it changes by a factor of four while nothing is done: where its host puts
 * both CPUs on one core, or on two that share a cache or none.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define ROUNDS 500000

static _Alignas(128) int ball; /* odd: it is the other's */

static void run_on(int cpu)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(cpu, &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus)) {
		perror("sched_setaffinity");
		exit(1);
	}
}

static void await(int value)
{
	while (__atomic_load_n(&ball, __ATOMIC_ACQUIRE) != value)
		;
}

static void *return_balls(void *cpu)
{
	run_on(*(int *)cpu);
	for (int i = 0; i < ROUNDS; i++) {
		await(2 * i + 1);
		__atomic_store_n(&ball, 2 * i + 2, __ATOMIC_RELEASE);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	struct timespec start, end;
	pthread_t thread;
	int cpu;

	if (argc != 3)
		return 2;
	run_on(atoi(argv[1]));
	cpu = atoi(argv[2]);
	if (pthread_create(&thread, NULL, return_balls, &cpu))
		return 1;
	clock_gettime(CLOCK_MONOTONIC, &start);
	for (int i = 0; i < ROUNDS; i++) {
		__atomic_store_n(&ball, 2 * i + 1, __ATOMIC_RELEASE);
		await(2 * i + 2);
	}
	clock_gettime(CLOCK_MONOTONIC, &end);
	pthread_join(thread, NULL);
	printf("%.1f\n",
	       ((end.tv_sec - start.tv_sec) * 1e9 + (end.tv_nsec - start.tv_nsec)) / ROUNDS);
	return 0;
}
