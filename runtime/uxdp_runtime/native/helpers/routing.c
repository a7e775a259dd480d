/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * bpf_fib_lookup and bpf_check_mtu: the kernel's own answers, see ../ask.h.
 *
 * References: net/core/filter.c, bpf_xdp_fib_lookup(), bpf_xdp_check_mtu()
 */
#include "../ask.h"

enum {
	BPF_MTU_CHK_RET_SUCCESS = 0,
	BPF_MTU_CHK_RET_FRAG_NEEDED = 1,
};

UXDP_INLINE u64 fold_product(u64 one, u64 other)
{
	unsigned __int128 product = (unsigned __int128)one * other;

	return (u64)product ^ (u64)(product >> 64);
}

/* Two entries side by side in which an answer may be; odd constants without meaning. */
UXDP_INLINE struct uxdp_route *route_pair(const struct uxdp_fib *key, u32 flags)
{
	u64 words[8], hash = flags * 0x9e3779b97f4a7c15ull;

	__builtin_memcpy(words, key, sizeof(words));
	hash ^= fold_product(words[0] ^ 0xa0761d6478bd642full, words[1] ^ 0xe7037ed1a0b428dbull);
	hash ^= fold_product(words[2] ^ 0x8ebc6af09c88c6e3ull, words[3] ^ 0x589965cc75374cc3ull);
	hash ^= fold_product(words[4] ^ 0x1d8e4e27c47d124full, words[5] ^ 0xeb44accab455d165ull);
	hash ^= fold_product(words[6] ^ 0x9c6e6877736c46e3ull, words[7] ^ 0xd6e8feb86659fd93ull);
	hash *= 0xff51afd7ed558ccdull;
	return &uxdp_kernel.routes[hash >> (64 - UXDP_ROUTE_BITS) & ~1ull];
}

UXDP_INLINE bool is_route_of(const struct uxdp_route *route, const struct uxdp_fib *key, u32 flags)
{
	return route->flags == flags && !__builtin_memcmp(&route->key, key, sizeof(*key)) &&
	       kernel_is_current(route->generation, route->asked_ns);
}

/* Ask, and keep the answer in the place of the older one of a pair; NULL if nobody answers. */
UXDP_COLD const struct uxdp_route *ask_route(struct uxdp_route *pair, const struct uxdp_fib *key,
					     u32 flags)
{
	struct uxdp_route *route = &pair[pair[0].generation == pair[1].generation
					     ? pair[0].asked_ns > pair[1].asked_ns
					     : pair[0].generation > pair[1].generation];
	struct uxdp_question *question = uxdp_kernel.question;
	u64 generation = kernel_generation();

	question->fib = *key;
	question->flags = flags;
	/* An entry that a killed process left half written must not be taken for one. */
	route->generation = 0;
	if (!kernel_ask(UXDP_ASK_FIB, 0, 0))
		return NULL;
	route->asked_ns = kernel_now_ns();
	route->result = question->result;
	route->flags = flags;
	route->longest = question->longest;
	route->sets_tot_len = question->sets_tot_len;
	route->key = *key;
	route->answer = question->fib;
	route->too_long = question->too_long;
	__atomic_store_n(&route->generation, generation, __ATOMIC_RELEASE);
	return route;
}

UXDP_HELPER s64 uxdp_helper_fib_lookup(struct uxdp_frame *frame, void *params, u64 len, u64 flags)
{
	const struct uxdp_route *route;
	struct uxdp_route *pair;
	struct uxdp_fib key, answer;
	u32 tot_len;

	(void)frame;
	if (unlikely((u32)len < sizeof(key)))
		return -EINVAL;
	__builtin_memcpy(&key, params, sizeof(key));
	tot_len = key.tot_len;
	key.tot_len = 0;
	pair = route_pair(&key, flags);
	route = is_route_of(&pair[0], &key, flags)   ? &pair[0]
		: is_route_of(&pair[1], &key, flags) ? &pair[1]
						     : NULL;
	if (likely(route))
		kernel_count(&uxdp_kernel.remembered);
	else if (unlikely(!(route = ask_route(pair, &key, flags))))
		return -EIO;
	if (unlikely(tot_len > route->longest)) {
		__builtin_memcpy(params, &route->too_long, sizeof(key));
		return UXDP_FIB_LOOKUP_FRAG_NEEDED;
	}
	answer = route->answer;
	if (!route->sets_tot_len)
		answer.tot_len = tot_len;
	__builtin_memcpy(params, &answer, sizeof(answer));
	return route->result;
}

/* Ask with the program's own arguments; what the answer says of the device is kept. */
UXDP_COLD s64 ask_mtu(struct uxdp_device *device, u32 ifindex, u32 *mtu_len, u32 frame_len,
		      u32 len_diff, u64 flags)
{
	struct uxdp_question *question = uxdp_kernel.question;
	u64 generation = kernel_generation();

	question->ifindex = ifindex;
	question->mtu_len = *mtu_len;
	question->frame_len = frame_len;
	question->len_diff = len_diff;
	question->flags = flags;
	if (!kernel_ask(UXDP_ASK_MTU, 0, 0))
		return -EIO;
	*mtu_len = question->mtu_len;
	if (question->knows_device) {
		device->generation = 0;
		device->asked_ns = kernel_now_ns();
		device->ifindex = ifindex;
		device->mtu = question->mtu;
		device->hard_header_len = question->hard_header_len;
		__atomic_store_n(&device->generation, generation, __ATOMIC_RELEASE);
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
	if (unlikely(flags || device->ifindex != ifindex ||
		     !kernel_is_current(device->generation, device->asked_ns))) {
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
