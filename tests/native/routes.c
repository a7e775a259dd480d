/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Answers about routes, with keys that a test counts up; who was asked for is in an answer's
 * metric. */
#include "../../runtime/uxdp_runtime/native/abi.h"
#include "../../runtime/uxdp_runtime/native/routes.h"

static struct wanted_route numbered(u32 number, u32 family, u32 flags)
{
	struct uxdp_fib fib = {.family = family, .ifindex = 3};

	/* The last words differ, and for some keys the first ones do. */
	if (family == ROUTE_AF_INET)
		fib.dst[0] = number;
	else
		fib.dst[3] = number;
	if (flags & BPF_FIB_LOOKUP_TBID)
		fib.tbid = number;
	return wanted_route((void *)&fib, flags);
}

/* Look for keys, take answers for those that have none; return how many had none. */
u32 test_remember(struct uxdp_routes *routes, u32 first, u32 num, u32 family, u32 flags)
{
	u32 taken = 0;

	for (u32 i = first; i < first + num; i++) {
		struct wanted_route wanted = numbered(i, family, flags);
		u32 number = find_route(routes, &wanted);

		if (number)
			continue;
		number = take_route(routes, &wanted, (i + 1) * 0x9e3779b97f4a7c15ull);
		routes->routes[number].metric = i;
		taken++;
	}
	return taken;
}

/* How many keys have answers; ~0 if one has another's. */
u32 test_found(struct uxdp_routes *routes, u32 first, u32 num, u32 family, u32 flags)
{
	u32 found = 0;

	for (u32 i = first; i < first + num; i++) {
		struct wanted_route wanted = numbered(i, family, flags);
		u32 number = find_route(routes, &wanted);

		if (number && routes->routes[number].metric != i)
			return ~0u;
		found += number != 0;
	}
	return found;
}
