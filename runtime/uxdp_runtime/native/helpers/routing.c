/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * bpf_fib_lookup and bpf_check_mtu: the kernel's own answers, see ../ask.h.
 *
 * References: net/core/filter.c, bpf_xdp_fib_lookup(), bpf_xdp_check_mtu()
 */
#include "../ask.h"
#include "../maps/prefetch.h"

enum {
	BPF_MTU_CHK_RET_SUCCESS = 0,
	BPF_MTU_CHK_RET_FRAG_NEEDED = 1,
};

/* Fill in what a lookup with these arguments leaves in them; return what it returns. */
UXDP_INLINE s64 apply_route(const struct uxdp_route *route, const struct uxdp_route_rest *rest,
			    program_fib *fib)
{
	u32 parts = route->parts;

	if (unlikely(fib->tot_len > route->longest)) {
		fib->tot_len = route->longest;
		if (parts & UXDP_ROUTE_LONG_VLAN)
			fib->tbid = 0;
		return UXDP_FIB_LOOKUP_FRAG_NEEDED;
	}
	fib->ifindex = route->ifindex;
	if (parts & UXDP_ROUTE_METRIC)
		fib->tos = route->metric;
	fib->dst[0] = route->dst;
	if (parts & UXDP_ROUTE_TOT_LEN)
		fib->tot_len = route->tot_len;
	if (parts & UXDP_ROUTE_VLAN)
		fib->tbid = 0;
	if (parts & UXDP_ROUTE_MACS)
		__builtin_memcpy(fib->smac, route->macs, sizeof(route->macs));
	if (unlikely(parts & UXDP_ROUTE_IN_REST)) {
		if (parts & UXDP_ROUTE_FAMILY)
			fib->family = rest->to_family;
		if (parts & UXDP_ROUTE_SRC)
			fib->src[0] = rest->to_src[0];
		if (parts & UXDP_ROUTE_SRC_REST)
			__builtin_memcpy(&fib->src[1], &rest->to_src[1], 3 * sizeof(u32));
		if (parts & UXDP_ROUTE_DST_REST)
			__builtin_memcpy(&fib->dst[1], rest->to_dst, sizeof(rest->to_dst));
	}
	return route->result;
}

/* One lookup, as the program has it. */
UXDP_INLINE s64 ask_fib(void *params, u32 flags)
{
	struct uxdp_question *question = uxdp_kernel.question;

	question->flags = flags;
	question->num_fibs = 1;
	__builtin_memcpy(&question->fibs[0], params, sizeof(question->fibs[0]));
	if (!kernel_ask(UXDP_ASK_FIB, 0, 0))
		return -EIO;
	__builtin_memcpy(params, &question->fibs[0], sizeof(question->fibs[0]));
	return question->fib_results[0];
}

/* With something else in all that a lookup does not depend on, to see what is written. */
UXDP_INLINE struct uxdp_fib other_fib(const struct uxdp_fib *fib, u32 flags)
{
	struct uxdp_fib other = *fib;
	u8 *macs = other.smac;

	if (fib->family == ROUTE_AF_INET) {
		other.tos ^= 0xffffff00;
		for (u32 i = 1; i < 4; i++) {
			other.src[i] = ~other.src[i];
			other.dst[i] = ~other.dst[i];
		}
	}
	if (!(flags & BPF_FIB_LOOKUP_TBID))
		other.tbid = ~other.tbid;
	for (u32 i = flags & BPF_FIB_LOOKUP_MARK ? sizeof(u32) : 0; i < 12; i++)
		macs[i] = ~macs[i];
	return other;
}

/* A part is written if it is the same afterwards, whatever it was. */
#define PART_IF_WRITTEN(part, field, bytes)                                                        \
	(!__builtin_memcmp(&out[0].field, &out[1].field, bytes) &&                                 \
		 (__builtin_memcmp(&out[0].field, &in[0].field, bytes) ||                          \
		  __builtin_memcmp(&out[1].field, &in[1].field, bytes))                            \
	     ? (part)                                                                              \
	     : 0)

/* What three lookups tell of all others with this key. */
UXDP_INLINE void learn_route(struct uxdp_route *route, struct uxdp_route_rest *rest,
			     const struct uxdp_fib *in, const struct uxdp_fib *out,
			     const s64 *results)
{
	route->result = results[0];
	route->longest =
	    results[2] == UXDP_FIB_LOOKUP_FRAG_NEEDED ? out[2].tot_len : UXDP_FIB_TOT_LEN_MAX;
	route->tot_len = out[0].tot_len;
	route->ifindex = out[0].ifindex;
	route->metric = out[0].tos;
	route->dst = out[0].dst[0];
	__builtin_memcpy(route->macs, out[0].smac, sizeof(route->macs));
	route->parts = PART_IF_WRITTEN(UXDP_ROUTE_TOT_LEN, tot_len, sizeof(u16)) |
		       PART_IF_WRITTEN(UXDP_ROUTE_VLAN, tbid, sizeof(u32)) |
		       PART_IF_WRITTEN(UXDP_ROUTE_MACS, smac, 12) |
		       PART_IF_WRITTEN(UXDP_ROUTE_METRIC, tos, sizeof(u32)) |
		       PART_IF_WRITTEN(UXDP_ROUTE_FAMILY, family, 1) |
		       PART_IF_WRITTEN(UXDP_ROUTE_SRC, src[0], sizeof(u32)) |
		       PART_IF_WRITTEN(UXDP_ROUTE_SRC_REST, src[1], 3 * sizeof(u32)) |
		       PART_IF_WRITTEN(UXDP_ROUTE_DST_REST, dst[1], 3 * sizeof(u32));
	if (in[2].tbid && !out[2].tbid)
		route->parts |= UXDP_ROUTE_LONG_VLAN;
	if (route->parts & UXDP_ROUTE_IN_REST) {
		__builtin_memcpy(rest->to_src, out[0].src, sizeof(rest->to_src));
		__builtin_memcpy(rest->to_dst, &out[0].dst[1], sizeof(rest->to_dst));
		rest->to_family = out[0].family;
	}
}

/*
 * Ask, and keep the answer. It depends on tot_len only by whether that is more than the path's MTU:
 * so lookups with the least lengths and with the greatest one tell it for all of them. The number;
 * 0 if nobody answers, or if what is learnt does not explain what was answered: then it is not
 * kept.
 */
UXDP_INLINE u32 ask_route(const program_fib *params, u32 flags)
{
	struct uxdp_question *question = uxdp_kernel.question;
	struct uxdp_routes *routes = uxdp_kernel.routes;
	struct wanted_route wanted = wanted_route(params, flags);
	u32 number = find_route(routes, &wanted);
	struct uxdp_fib in[UXDP_FIBS];
	u64 stamp = kernel_stamp();

	__builtin_memcpy(&in[0], params, sizeof(in[0]));
	in[0].tot_len = 0;
	in[1] = other_fib(&in[0], flags);
	in[1].tot_len = 1;
	in[2] = in[0];
	in[2].tot_len = UXDP_FIB_TOT_LEN_MAX;
	question->flags = flags;
	question->num_fibs = UXDP_FIBS;
	__builtin_memcpy(question->fibs, in, sizeof(in));
	if (!kernel_ask(UXDP_ASK_FIB, 0, 0))
		return 0;
	if (!number)
		number = take_route(routes, &wanted, uxdp_kernel.asked * 0x9e3779b97f4a7c15ull);
	routes->routes[number].stamp = 0;
	learn_route(&routes->routes[number], &routes->rests[number], in, question->fibs,
		    question->fib_results);
	for (u32 i = 0; i < UXDP_FIBS; i++)
		if (apply_route(&routes->routes[number], &routes->rests[number], &in[i]) !=
			question->fib_results[i] ||
		    __builtin_memcmp(&in[i], &question->fibs[i], sizeof(in[i])))
			return 0;
	routes->routes[number].stamp = stamp;
	return number;
}

/*
 * What is not known. All that this is told is the program's own memory: the address of anything
 * else would keep that in memory on the way of those who know, too.
 */
UXDP_COLD s64 ask_fib_lookup(void *params, u32 flags)
{
	struct uxdp_routes *routes = uxdp_kernel.routes;
	u32 number = flags & ~ROUTE_FLAGS ? 0 : ask_route(params, flags);

	return number ? apply_route(&routes->routes[number], &routes->rests[number], params)
		      : ask_fib(params, flags);
}

UXDP_HELPER s64 uxdp_helper_fib_lookup(struct uxdp_frame *frame, void *params, u64 len, u64 flags)
{
	struct uxdp_routes *routes = uxdp_kernel.routes;
	struct wanted_route wanted;
	u32 number;

	(void)frame;
	if (unlikely((u32)len < sizeof(struct uxdp_fib)))
		return -EINVAL;
	wanted = wanted_route(params, flags);
	number = find_route(routes, &wanted);
	if (unlikely(!number || (u32)flags & ~ROUTE_FLAGS ||
		     !kernel_is_current(routes->routes[number].stamp)))
		return ask_fib_lookup(params, flags);
	kernel_count(&uxdp_kernel.remembered);
	return apply_route(&routes->routes[number], &routes->rests[number], params);
}

/* For looking ahead: the place of a lookup, 0 if it has none. */
UXDP_HELPER u64 uxdp_prefetch_fib_lookup(const void *params, u64 len, u64 flags)
{
	struct wanted_route wanted;

	if ((u32)len < sizeof(struct uxdp_fib))
		return 0;
	wanted = wanted_route(params, flags);
	return prefetch_route_set(uxdp_kernel.routes, &wanted);
}

UXDP_HELPER void uxdp_prefetch_route(u64 place)
{
	prefetch_route(uxdp_kernel.routes, place);
}

UXDP_HELPER bool uxdp_routes_outgrow_cache(void)
{
	return uxdp_kernel.routes->used *
		   (sizeof(struct uxdp_route) + UXDP_ROUTE_SLOTS * sizeof(u32)) >
	       UXDP_CACHE_BYTES;
}

/* Ask with the program's own arguments; what the answer says of the device is kept. */
UXDP_COLD s64 ask_mtu(struct uxdp_device *device, u32 ifindex, u32 *mtu_len, u32 frame_len,
		      u32 len_diff, u64 flags)
{
	struct uxdp_question *question = uxdp_kernel.question;
	u64 stamp = kernel_stamp();

	question->ifindex = ifindex;
	question->mtu_len = *mtu_len;
	question->frame_len = frame_len;
	question->len_diff = len_diff;
	question->flags = flags;
	if (!kernel_ask(UXDP_ASK_MTU, 0, 0))
		return -EIO;
	*mtu_len = question->mtu_len;
	if (question->knows_device) {
		device->stamp = stamp;
		device->ifindex = ifindex;
		device->mtu = question->mtu;
		device->hard_header_len = question->hard_header_len;
	}
	return question->result;
}

UXDP_HELPER s64 uxdp_helper_check_mtu(const struct uxdp_frame *frame, u64 number, void *mtu_len,
				      u64 len_diff, u64 flags)
{
	u32 ifindex = (u32)number ? (u32)number : frame->ingress_ifindex;
	u32 frame_len = frame->data_end - frame->data;
	struct uxdp_device *device = &uxdp_kernel.devices[ifindex % UXDP_DEVICES];
	u32 len;

	__builtin_memcpy(&len, mtu_len, sizeof(len));
	if (unlikely(flags || device->ifindex != ifindex || !kernel_is_current(device->stamp))) {
		s64 result = ask_mtu(device, ifindex, &len, frame_len, len_diff, flags);

		__builtin_memcpy(mtu_len, &len, sizeof(len));
		return result;
	}
	kernel_count(&uxdp_kernel.remembered);
	/* As the kernel has it: a length at the network layer, or else the frame's. */
	len = (len ? len + device->hard_header_len : frame_len) + (u32)len_diff;
	__builtin_memcpy(mtu_len, &device->mtu, sizeof(device->mtu));
	return (s32)len > (s32)(device->mtu + device->hard_header_len) ? BPF_MTU_CHK_RET_FRAG_NEEDED
								       : BPF_MTU_CHK_RET_SUCCESS;
}
