// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * The project's own loader: opens one object by its skeleton and one by its file, changes a
 * constant, attaches both to an interface in turn, and runs frames through them.
 *
 * usage: loader PORTS_OBJECT INTERFACE
 */
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include "count.skel.h"
#include "shared.h"

#define CLOSED_PORT 53

/* An Ethernet, an IPv4 and a UDP header, to CLOSED_PORT. */
static const unsigned char frame[] = {
    0x02, 0,  0,  0, 0, 1,   0x02, 0, 0, 0,   0, 2, 0x08, 0x00, 0x45, 0, 0,	      28, 0, 0, 0,
    0,	  64, 17, 0, 0, 192, 0,	   2, 1, 192, 0, 2, 2,	  0x30, 0x39, 0, CLOSED_PORT, 0,  8, 0, 0,
};

static int run(int program, unsigned int len, const char *name)
{
	unsigned char data[2048] = {0};
	LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = data, .data_size_in = len, .repeat = 1);
	int error;

	memcpy(data, frame, sizeof(frame));
	error = bpf_prog_test_run_opts(program, &options);
	if (error)
		return error;
	printf("%s: %u bytes, verdict %u\n", name, len, options.retval);
	return 0;
}

static int attach_and_detach(struct bpf_program *program, int ifindex)
{
	struct bpf_link *link = bpf_program__attach_xdp(program, ifindex);
	int error = libbpf_get_error(link);

	if (error)
		return error;
	printf("%s: attached\n", bpf_program__name(program));
	return bpf_link__destroy(link);
}

static int count_frames(int ifindex)
{
	struct count *skeleton = count__open();
	__u64 values[256] = {0}, frames = 0;
	__u32 key = COUNTER_FRAMES;
	int error, cpu, num_cpus = libbpf_num_possible_cpus();

	if (!skeleton)
		return -errno;
	skeleton->rodata->max_len_bytes = 100;
	error = count__load(skeleton);
	if (!error)
		error = run(bpf_program__fd(skeleton->progs.count), 100, "count");
	if (!error)
		error = run(bpf_program__fd(skeleton->progs.count), 101, "count");
	if (!error)
		error = bpf_map__lookup_elem(skeleton->maps.counters, &key, sizeof(key), values,
					     sizeof(__u64) * num_cpus, 0);
	for (cpu = 0; !error && cpu < num_cpus; cpu++)
		frames += values[cpu];
	if (!error)
		printf("count: %llu frames\n", (unsigned long long)frames);
	if (!error)
		error = attach_and_detach(skeleton->progs.count, ifindex);
	count__destroy(skeleton);
	return error;
}

static int close_port(const char *path, int ifindex)
{
	struct bpf_object *object = bpf_object__open_file(path, NULL);
	struct bpf_program *program;
	struct bpf_map *map;
	__u16 port = CLOSED_PORT;
	__u64 hits = 0;
	int error = libbpf_get_error(object);

	if (error)
		return error;
	error = bpf_object__load(object);
	program = bpf_object__find_program_by_name(object, "ports");
	map = bpf_object__find_map_by_name(object, "closed");
	if (!error)
		error = run(bpf_program__fd(program), sizeof(frame), "ports, open");
	if (!error)
		error =
		    bpf_map__update_elem(map, &port, sizeof(port), &hits, sizeof(hits), BPF_ANY);
	if (!error)
		error = run(bpf_program__fd(program), sizeof(frame), "ports, closed");
	if (!error)
		error = bpf_map__lookup_elem(map, &port, sizeof(port), &hits, sizeof(hits), 0);
	if (!error)
		printf("ports: %llu hits\n", (unsigned long long)hits);
	if (!error)
		error = attach_and_detach(program, ifindex);
	bpf_object__close(object);
	return error;
}

int main(int argc, char **argv)
{
	int ifindex = argc == 3 ? if_nametoindex(argv[2]) : 0;
	int error;

	if (!ifindex) {
		fprintf(stderr, "usage: loader PORTS_OBJECT INTERFACE\n");
		return 2;
	}
	error = count_frames(ifindex);
	if (!error)
		error = close_port(argv[1], ifindex);
	if (error)
		fprintf(stderr, "loader: %s\n", strerror(-error));
	return error != 0;
}
