/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The ABI between compiled network functions, the native library and the runtime.
 *
 * Everything in native/ is compiled to LLVM bitcode once, when the wheel is built, and linked with
 * a network function's IR when that is compiled. There, each map is a constant struct uxdp_map, so
 * that whatever depends on a definition folds away, and helper calls are direct calls that inline.
 *
 * Whose memory is whose:
 * - a frame's bytes and its struct uxdp_frame belong to the port and are lent for one burst;
 * - a store is the memory of one map: position-independent, offsets and no pointers inside,
 * allocated and zeroed by the runtime, shared by all workers and by the control plane;
 * - struct uxdp_worker belongs to one worker thread. A module is loaded once per worker, so symbols
 *   that the loader resolves (uxdp_worker, cpu_store) can differ between workers without a lookup.
 *
 * Shared words are accessed with __atomic builtins. Python declares these structs once more, in
 * uxdp_runtime/abi.py; a test compares sizes and offsets.
 */
#ifndef UXDP_ABI_H
#define UXDP_ABI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int16_t s16;
typedef int32_t s32;
typedef int64_t s64;

#define UXDP_INLINE static inline __attribute__((always_inline))
/* A helper is found by the compiler by its name: uxdp_helper_, for kfuncs uxdp_kfunc_, and the
 * kernel's name without bpf_. */
#define UXDP_HELPER __attribute__((always_inline))
/* Of the control plane only: not fast, but quickly compiled. */
#ifdef __clang__
#define UXDP_SMALL __attribute__((minsize))
#else
#define UXDP_SMALL
#endif
/* Called from the runtime through ctypes, on any kind of map. */
#define UXDP_CONTROL UXDP_SMALL __attribute__((noinline))

#define UXDP_HEADROOM 256u	 /* XDP_PACKET_HEADROOM, include/uapi/linux/bpf.h */
#define UXDP_TAIL_CALL_LIMIT 33u /* MAX_TAIL_CALL_CNT, include/linux/bpf.h */

/* The native xdp_md (see uxdp_bundle/shim.py) and what helpers keep behind it. One cache line and a
 * half. */
struct uxdp_frame {
	u64 data; /* pointers, as in struct xdp_buff */
	u64 data_end;
	u64 data_meta;
	u32 ingress_ifindex;
	u32 rx_queue_index;
	u32 egress_ifindex;
	u32 verdict; /* enum xdp_action, or what else the program returned */
	/* Not visible to programs: */
	u64 hard_start;	   /* first byte of the buffer: headroom begins here */
	u64 limit;	   /* end of the buffer: tailroom ends here */
	u32 redirect_kind; /* enum uxdp_redirect */
	u32 redirect_map;  /* struct uxdp_map.id, if by map */
	u64 redirect_flags;
	u64 redirect_target; /* ifindex, or the map's value (devmap: ifindex; cpumap: cpu; xskmap:
				key) */
	u32 redirect_key;
	u32 tail_calls; /* left to make */
};

/*
 * What hardware says of a frame, for bpf_xdp_metadata_rx_*: beside the frames, for few programs
 * ask. An error is 0 where there is a value, else -errno as a driver has it: -EOPNOTSUPP what it
 * never knows, -ENODATA what it does not know of this frame.
 */
struct uxdp_rx_metadata {
	u64 timestamp_ns;
	u32 hash;
	u32 hash_type;	/* enum xdp_rss_hash_type, include/net/xdp.h */
	u16 vlan_proto; /* ETH_P_8021Q or ETH_P_8021AD, big-endian */
	u16 vlan_tci;
	s16 timestamp_error;
	s16 hash_error;
	s16 vlan_error;
	u16 mark[3]; /* UXDP_METADATA_MARK, native/bpf/bpf.h, where it comes in front of a frame */
};

/* Memory from start to end, end excluded. */
struct uxdp_range {
	u64 start;
	u64 end;
};

enum uxdp_redirect {
	UXDP_REDIRECT_NONE = 0,
	UXDP_REDIRECT_IFINDEX = 1, /* bpf_redirect */
	UXDP_REDIRECT_MAP = 2,	   /* bpf_redirect_map */
};

/* In redirect_flags: the program of the cpumap's entry has run. */
#define UXDP_REDIRECT_DONE (1ull << 63)

/* A map's definition. In a compiled network function it is a constant global. */
struct uxdp_map {
	u32 kind;	/* enum bpf_map_type */
	u32 key_size;	/* bytes */
	u32 value_size; /* bytes */
	u32 max_entries;
	u32 flags;    /* BPF_F_* of the definition */
	u32 id;	      /* index of the map in the bundle's manifest */
	u32 num_cpus; /* workers: slots of per-CPU maps */
	u16 inner;    /* made by a control plane: "store" is an offset, see maps/nested.h */
	u16 extra;    /* BLOOM_FILTER: map_extra, the number of hashes. HASH, ARRAY: where in values
			 a struct bpf_spin_lock is, plus 1 */
	void *store;  /* the map's memory; page-aligned */
	void *cpu_store; /* this worker's part of it: store + uxdp_store_cpu_offset(map, worker) */
};

struct uxdp_worker {
	u32 cpu; /* bpf_get_smp_processor_id(), and the slot in per-CPU maps */
	u32 num_cpus;
	u64 prng[4];		  /* state of bpf_get_prandom_u32; seeded by the runtime */
	u64 now_ns;		  /* if not 0: what all clocks return, for reproducible runs */
	u64 jiffies_hz;		  /* CONFIG_HZ of the running kernel */
	u64 trace_fd;		  /* bpf_trace_printk writes there; -1: nowhere */
	struct uxdp_frame *frame; /* the one at hand, for helpers that are not told the context */
	/* How to tell the time from the CPU's counter, see clock.h; zero at first. */
	u64 clock_fresh; /* clock_ticks and clock_ns can be counted on from */
	u64 clock_ticks;
	u64 clock_ns;
	u64 clock_rate; /* ns per tick, times 2^32; 0: not known */
	u64 clock_base_ticks;
	u64 clock_base_ns;
	u64 clock_last; /* what was told last: it never goes back */
	/* What the port knows of a burst's frames, one for each; NULL: nothing, which is
	 * -EOPNOTSUPP. */
	const struct uxdp_rx_metadata *rx_metadata;
	const struct uxdp_frame *burst; /* the first of the burst's frames */
	/* What a program may read by an address that nobody has checked, see known_memory.h. */
	const struct uxdp_range *memory;
	u64 num_memory;
	u64 stack_top; /* of the burst that is run; above it is nothing of the program's */
	u64 numa_node; /* bpf_get_numa_node_id: of the CPU that the worker runs on */
	struct uxdp_timers *timers; /* see timers.h; NULL: the program has none */
	u64 *next_timer_ns;	    /* CLOCK_MONOTONIC: when uxdp_run is to be called; 0: never */
	u64 in_timer;		    /* a callback runs */
	u64 runs_onward;	    /* whether programs of devmaps and cpumaps run, see onward.h */
	/* Frames that share a reading of the clock, see clock.h. */
	u32 clock_frames;  /* that came since the last reading */
	u32 clock_share;   /* clock_last does for so many; 0: for none, the next call reads */
	u64 clock_read_ns; /* the last reading */
};

/* Tests with several threads in one module define this as __thread. */
#ifndef UXDP_WORKER_STORAGE
#define UXDP_WORKER_STORAGE
#endif

extern UXDP_WORKER_STORAGE struct uxdp_worker uxdp_worker;

/* --- data plane: what the compiler calls in a network function's place
 * -------------------------------------------- */

/* The program itself; the compiler defines it as a call of the entry that was asked for. */
u32 uxdp_program(struct uxdp_frame *frame);

/* In the place of a verdict that all frames of a burst have. */
#define UXDP_VERDICTS_DIFFER 0xffffffffu

/*
 * Whether the program asks where a frame's buffer begins or ends, as it does before it moves a
 * frame's own ends. Otherwise hard_start and limit need not be filled in, and frames stay where
 * they are.
 */
bool uxdp_asks_for_room(void);

/*
 * Call the timers that are due, then run the program on n frames, which may be none; fills in
 * verdict and redirect_*, and returns the verdict that all of them have. Descriptors are zero
 * before they are used first: of what the program never asks for, nothing is written.
 */
u32 uxdp_run(struct uxdp_frame *frames, u32 n);

/*
 * Where a tail call leads: the number of a program (what the map's store has, minus 1), or -ENOENT
 * if it fails and the program continues.
 */
s64 uxdp_tail_target(struct uxdp_frame *frame, const struct uxdp_map *map, u64 index);

/* Whether the program can redirect, whether helpers ask for the frame at hand (uxdp_worker.frame),
 * whether they are given addresses that nobody has checked (uxdp_worker.stack_top), whether frames
 * may share a reading of the clock (clock.h), whether it makes tail calls, and has maps of maps;
 * the compiler defines them. */
bool uxdp_redirects(void);
bool uxdp_asks_for_frame(void);
bool uxdp_asks_for_memory(void);
bool uxdp_has_timers(void);
bool uxdp_shares_time(void);
bool uxdp_makes_tail_calls(void);
bool uxdp_has_inner_maps(void);

/* Whether devmaps and cpumaps may name programs, and the one of a number, counted from 1. */
bool uxdp_has_onward(void);
u32 uxdp_onward(struct uxdp_frame *frame, u32 number);

/*
 * What a program has as a pointer to a map that it did not name may be an inner map: uxdp_map_here
 * returns a definition with addresses, made in "here" if it has to be. uxdp_inner_here always makes
 * it there; the compiler then puts in what it knows of it.
 */
const struct uxdp_map *uxdp_map_here(const struct uxdp_map *map, struct uxdp_map *here);
void uxdp_inner_here(const struct uxdp_map *map, struct uxdp_map *here);

/*
 * Looking ahead, see run.c. The compiler makes these of the program: the part of it up to the
 * lookups that may miss the cache, free of side effects (uxdp_runtime/compile/lookahead.py). ahead
 * returns which lookup a frame will make, from 1 on, and where it begins (0: not known), and in
 * which map, if it is an inner one; follow goes one step further, when that has been fetched; pays
 * tells whether it is worth the while now.
 */
u32 uxdp_ahead(struct uxdp_frame *frame, u64 *place, const struct uxdp_map **map);
void uxdp_follow(u32 lookup, u64 place, const struct uxdp_map *map);
bool uxdp_looks_ahead(void);
bool uxdp_ahead_pays(void);

/*
 * What they are made of. uxdp_peek is a lookup that leaves no trace. uxdp_prefetch fetches the
 * first cache line that a lookup of this key reads and returns its place in the map, for
 * uxdp_prefetch_element, which fetches what that leads to. Nothing is changed.
 */
void *uxdp_peek(const struct uxdp_map *map, const void *key);
u64 uxdp_prefetch(const struct uxdp_map *map, const void *key);
void uxdp_prefetch_element(const struct uxdp_map *map, u64 place);
/* Whether what is used of the map's memory is more than a CPU's own caches hold. */
bool uxdp_outgrows_cache(const struct uxdp_map *map);

/* Call the worker's timers that are due by a time, whatever the clock says: as many as are started.
 */
void uxdp_run_timers(u64 now_ns);

/* --- control plane: on any map, from any thread; 0 or a count, or -errno as bpf(2) returns it
 * ------------------------ */

/* Bytes of the map's store for num_cpus workers, or 0 if the definition is not valid (the kernel:
 * -EINVAL, -E2BIG). */
u64 uxdp_store_bytes(const struct uxdp_map *map);
u64 uxdp_store_cpu_offset(const struct uxdp_map *map, u32 cpu);
/* Bytes of the memory for timers (struct uxdp_timers) in the maps that have some; 0: in none. */
u64 uxdp_timers_bytes(const struct uxdp_map *maps, u32 num_maps, const u8 *with_timers,
		      u32 num_cpus);
/* Prepare it, zeroed; generation is a random number. */
void uxdp_timers_init(struct uxdp_timers *timers, const struct uxdp_map *maps, u32 num_maps,
		      const u8 *with_timers, u32 num_cpus, u64 generation);
/* Where it says when a worker's next timer is due, as uxdp_worker.next_timer_ns. */
u64 *uxdp_timers_next(struct uxdp_timers *timers, u32 cpu);
/* Prepare zeroed memory. */
s64 uxdp_store_init(const struct uxdp_map *map);

/* value: value_size bytes; for per-CPU maps num_cpus times value_size rounded up to 8, as bpf(2)
 * has it. */
s64 uxdp_map_lookup(const struct uxdp_map *map, const void *key, void *value);
s64 uxdp_map_update(const struct uxdp_map *map, const void *key, const void *value, u64 flags);
s64 uxdp_map_delete(const struct uxdp_map *map, const void *key);
/*
 * Maps without keys, whose lookup is a peek (of a BLOOM_FILTER with the value to look for), and
 * whose update a push. uxdp_map_pop takes the next value; uxdp_map_read_value reads any, counted
 * from the one that was pushed first.
 */
s64 uxdp_map_pop(const struct uxdp_map *map, void *value);
s64 uxdp_map_read_value(const struct uxdp_map *map, u64 place, void *value);
/* key NULL: the first; -ENOENT behind the last. */
s64 uxdp_map_next_key(const struct uxdp_map *map, const void *key, void *next);
/*
 * Read up to count elements, from the first or from behind a key on, which becomes the last one's;
 * fewer than count: there are no more.
 */
s64 uxdp_map_read(const struct uxdp_map *map, void *key, bool first, void *keys, void *values,
		  u64 count);
/*
 * Take submitted records out of a RINGBUF. Each is written to the buffer as its length (u32), a
 * zero (u32) and its bytes, filled up with zeros to a multiple of 8. The bytes written, 0 if there
 * is nothing; -ENOSPC if not even the first record fits. One thread at a time.
 */
s64 uxdp_ringbuf_consume(const struct uxdp_map *map, void *buffer, u64 len);
/* The same from a position on, which moves behind what was read; the records stay in the ring. */
s64 uxdp_ringbuf_read(const struct uxdp_map *map, u64 *position, void *buffer, u64 len);
/* Put a record into a USER_RINGBUF; -E2BIG, or -ENOSPC if it is full. One thread at a time. */
s64 uxdp_ringbuf_produce(const struct uxdp_map *map, const void *data, u64 len);

#endif
