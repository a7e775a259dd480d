/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Strings: bpf_strncmp, numbers that are read from text (bpf_strtol, bpf_strtoul), and the kfuncs
 * that take strings at any address. Of those each string has at most 65536 bytes, or the answer is
 * -E2BIG.
 *
 * References: kernel/bpf/helpers.c; lib/kstrtox.c; lib/ctype.c, whose letters are those of Latin-1
 */
#include "../known_memory.h"

#define XATTR_SIZE_MAX 65536 /* include/uapi/linux/limits.h */
#define STRTOX_BASE_MASK 0x1full
#define STRTOX_DIGITS 63 /* what __bpf_strtoull() copies; the rest is not looked at */

/* bpf_strncmp */
UXDP_HELPER s64 uxdp_helper_strncmp(const char *one, u64 size, const char *other)
{
	for (u32 i = 0; i < (u32)size; i++) {
		s32 difference = (u8)one[i] - (u8)other[i];

		if (difference || !one[i])
			return difference < 0 ? -1 : difference > 0;
	}
	return 0;
}

/* --- numbers --- */

UXDP_INLINE bool is_space(u8 c)
{
	return c == ' ' || (c >= '\t' && c <= '\r') || c == 0xa0;
}

UXDP_INLINE u32 digit_of(u8 c)
{
	u8 lower = c | 0x20;

	return c >= '0' && c <= '9'	      ? c - '0'
	       : lower >= 'a' && lower <= 'f' ? lower - 'a' + 10
					      : 16;
}

/* __bpf_strtoull(): how many bytes were used, or -errno */
UXDP_COLD s64 parse_number(const u8 *text, u64 size, u64 flags, u64 *number, bool *negative)
{
	u64 i = 0, end, first, value = 0;
	u32 base = flags & STRTOX_BASE_MASK;
	bool overflow = false;

	if (!size || (base != 0 && base != 8 && base != 10 && base != 16) ||
	    flags & ~STRTOX_BASE_MASK)
		return -EINVAL;
	while (i < size && is_space(text[i]))
		i++;
	*negative = i < size && text[i] == '-';
	i += *negative;
	if (i == size)
		return -EINVAL;
	end = size - i > STRTOX_DIGITS ? i + STRTOX_DIGITS : size;
	if (end - i >= 2 && text[i] == '0' && (text[i + 1] | 0x20) == 'x') {
		if (base == 0 && end - i >= 3 && digit_of(text[i + 2]) < 16)
			base = 16;
		if (base == 16)
			i += 2;
	}
	if (base == 0)
		base = text[i] == '0' ? 8 : 10;
	for (first = i; i < end; i++) {
		u32 digit = digit_of(text[i]);

		if (digit >= base)
			break;
		if (value >> 60 && value > (UINT64_MAX - digit) / base)
			overflow = true;
		value = value * base + digit;
	}
	*number = value;
	return overflow ? -ERANGE : i == first ? -EINVAL : (s64)i;
}

UXDP_HELPER s64 uxdp_helper_strtol(const void *text, u64 size, u64 flags, s64 *result)
{
	bool negative = false;
	u64 number = 0;
	s64 used;

	*result = 0;
	used = parse_number(text, size, flags, &number, &negative);
	if (used < 0)
		return used;
	if (negative ? (s64)-number > 0 : (s64)number < 0)
		return -ERANGE;
	*result = negative ? -number : number;
	return used;
}

UXDP_HELPER s64 uxdp_helper_strtoul(const void *text, u64 size, u64 flags, u64 *result)
{
	bool negative = false;
	u64 number = 0;
	s64 used;

	*result = 0;
	used = parse_number(text, size, flags, &number, &negative);
	if (used < 0)
		return used;
	if (negative)
		return -EINVAL;
	*result = number;
	return used;
}

/* --- strings at any address --- */

struct string {
	const u8 *bytes;
	u32 known; /* how many can be read; what is behind them is -EFAULT */
};

UXDP_INLINE struct string string_at(u64 address)
{
	return (struct string){(const u8 *)address, known_bytes(address)};
}

/* -ERANGE if one of them is not a place to read from. */
UXDP_INLINE s32 no_strings(u64 one, u64 other)
{
	return !known_bytes(one) ? unknown_memory(one) : unknown_memory(other);
}

UXDP_INLINE u8 lower_case(u8 c)
{
	bool upper = (c >= 'A' && c <= 'Z') || (c >= 0xc0 && c <= 0xde && c != 0xd7);

	return upper ? c + ('a' - 'A') : c;
}

UXDP_COLD s32 compare_strings(u64 first, u64 second, bool ignore_case)
{
	struct string one = string_at(first), other = string_at(second);

	if (!one.known || !other.known)
		return no_strings(first, second);
	for (u32 i = 0; i < XATTR_SIZE_MAX; i++) {
		u8 a, b;

		if (i >= one.known || i >= other.known)
			return -EFAULT;
		a = ignore_case ? lower_case(one.bytes[i]) : one.bytes[i];
		b = ignore_case ? lower_case(other.bytes[i]) : other.bytes[i];
		if (a != b)
			return a < b ? -1 : 1;
		if (!a)
			return 0;
	}
	return -E2BIG;
}

UXDP_HELPER s32 uxdp_kfunc_strcmp(u64 one, u64 other)
{
	return compare_strings(one, other, false);
}

UXDP_HELPER s32 uxdp_kfunc_strcasecmp(u64 one, u64 other)
{
	return compare_strings(one, other, true);
}

/* The index of the first c among count bytes, or of the end if that will do. */
UXDP_COLD s32 find_byte(u64 address, u64 count, u8 c, bool or_end)
{
	struct string text = string_at(address);
	u32 i;

	if (!text.known)
		return unknown_memory(address);
	for (i = 0; i < count && i < XATTR_SIZE_MAX; i++) {
		if (i >= text.known)
			return -EFAULT;
		if (text.bytes[i] == c)
			return i;
		if (!text.bytes[i])
			return or_end ? (s32)i : -ENOENT;
	}
	return i == XATTR_SIZE_MAX ? -E2BIG : -ENOENT;
}

UXDP_HELPER s32 uxdp_kfunc_strnchr(u64 text, u64 count, u32 c)
{
	return find_byte(text, count, c, false);
}

UXDP_HELPER s32 uxdp_kfunc_strchr(u64 text, u32 c)
{
	return find_byte(text, XATTR_SIZE_MAX, c, false);
}

UXDP_HELPER s32 uxdp_kfunc_strchrnul(u64 text, u32 c)
{
	return find_byte(text, XATTR_SIZE_MAX, c, true);
}

UXDP_COLD s32 find_last(u64 address, u32 c)
{
	struct string text = string_at(address);
	s32 last = -ENOENT;

	if (!text.known)
		return unknown_memory(address);
	for (u32 i = 0; i < XATTR_SIZE_MAX; i++) {
		if (i >= text.known)
			return -EFAULT;
		if (text.bytes[i] == c)
			last = i;
		if (!text.bytes[i])
			return last;
	}
	return -E2BIG;
}

/* Here the kernel's c is an int, and a number that is no byte is found nowhere. */
UXDP_HELPER s32 uxdp_kfunc_strrchr(u64 text, u32 c)
{
	return find_last(text, c);
}

UXDP_COLD s32 string_length(u64 address, u64 count)
{
	struct string text = string_at(address);
	u32 i;

	if (!text.known)
		return unknown_memory(address);
	for (i = 0; i < count && i < XATTR_SIZE_MAX; i++) {
		if (i >= text.known)
			return -EFAULT;
		if (!text.bytes[i])
			return i;
	}
	return i == XATTR_SIZE_MAX ? -E2BIG : (s32)i;
}

UXDP_HELPER s32 uxdp_kfunc_strnlen(u64 text, u64 count)
{
	return string_length(text, count);
}

UXDP_HELPER s32 uxdp_kfunc_strlen(u64 text)
{
	return string_length(text, XATTR_SIZE_MAX);
}

/* How many bytes at the beginning are in the set, or are not. */
UXDP_COLD s32 span(u64 address, u64 set_address, bool in_set)
{
	struct string text = string_at(address), set = string_at(set_address);

	if (!text.known || !set.known)
		return no_strings(address, set_address);
	for (u32 i = 0; i < XATTR_SIZE_MAX; i++) {
		u32 j;

		if (i >= text.known)
			return -EFAULT;
		if (!text.bytes[i])
			return i;
		for (j = 0; j < XATTR_SIZE_MAX; j++) {
			if (j >= set.known)
				return -EFAULT;
			if (set.bytes[j] == text.bytes[i] || !set.bytes[j])
				break;
		}
		if (j == XATTR_SIZE_MAX)
			return -E2BIG;
		if (!set.bytes[j] == in_set)
			return i;
	}
	return -E2BIG;
}

UXDP_HELPER s32 uxdp_kfunc_strspn(u64 text, u64 accept)
{
	return span(text, accept, true);
}

UXDP_HELPER s32 uxdp_kfunc_strcspn(u64 text, u64 reject)
{
	return span(text, reject, false);
}

UXDP_COLD s32 find_string(u64 address, u64 part_address, u64 len)
{
	struct string text = string_at(address), part = string_at(part_address);

	if (!text.known || !part.known)
		return no_strings(address, part_address);
	for (u32 i = 0; i < XATTR_SIZE_MAX; i++) {
		u32 j;

		for (j = 0; i + j <= len && j < XATTR_SIZE_MAX; j++) {
			if (j >= part.known)
				return -EFAULT;
			if (!part.bytes[j])
				return i;
			if (i + j == len)
				break;
			if (i + j >= text.known)
				return -EFAULT;
			if (!text.bytes[i + j])
				return -ENOENT;
			if (text.bytes[i + j] != part.bytes[j])
				break;
		}
		if (j == XATTR_SIZE_MAX)
			return -E2BIG;
		if (i + j == len)
			return -ENOENT;
	}
	return -E2BIG;
}

UXDP_HELPER s32 uxdp_kfunc_strnstr(u64 text, u64 part, u64 len)
{
	return find_string(text, part, len);
}

UXDP_HELPER s32 uxdp_kfunc_strstr(u64 text, u64 part)
{
	return find_string(text, part, XATTR_SIZE_MAX);
}
