/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The format strings of bpf_trace_printk, bpf_trace_vprintk and bpf_snprintf: what they may hold
 * and what comes out. Arguments are registers; %d is the lower half of one.
 *
 * Strings and IP addresses are read with process_vm_readv, because nothing obliges a program to
 * pass a pointer there; what cannot be read prints as an empty string or as zeros, as in the
 * kernel. %p prints a number that is the same for the same pointer and is not the address. There
 * are no symbols for %pS and %pB.
 *
 * References: kernel/bpf/helpers.c, bpf_bprintf_prepare(); lib/vsprintf.c, bstr_printf()
 */
#ifndef UXDP_HELPERS_FORMAT_H
#define UXDP_HELPERS_FORMAT_H

#include "../memory.h"

#define FORMAT_BYTES 1024u /* MAX_BPRINTF_BUF */
#define FORMAT_STRING 512u /* MAX_BPRINTF_BIN_ARGS: what all string arguments together may have */

struct uxdp_iovec {
	const void *base;
	u64 len;
};

extern s32 getpid(void);
extern s64 process_vm_readv(s32 pid, const struct uxdp_iovec *to, u64 num_to,
			    const struct uxdp_iovec *from, u64 num_from, u64 flags);

struct output {
	char *buffer;
	u64 size;
	u64 length; /* of everything, also of what did not fit */
};

struct spec {
	bool left, zero, plus, space;
	u32 width;
};

static void put_char(struct output *out, char c)
{
	if (out->length + 1 < out->size)
		out->buffer[out->length] = c;
	out->length++;
}

static void put_padding(struct output *out, u32 width, u32 length, char c)
{
	for (; width > length; width--)
		put_char(out, c);
}

static void put_text(struct output *out, const struct spec *spec, const char *text, u32 length)
{
	if (!spec->left)
		put_padding(out, spec->width, length, ' ');
	for (u32 i = 0; i < length; i++)
		put_char(out, text[i]);
	if (spec->left)
		put_padding(out, spec->width, length, ' ');
}

static void put_number(struct output *out, const struct spec *spec, u64 number, bool is_signed,
		       u32 base, bool upper)
{
	const char *digits = upper ? "0123456789ABCDEF" : "0123456789abcdef";
	char text[24], sign = 0;
	u32 length = 0, total;

	if (is_signed && (s64)number < 0) {
		sign = '-';
		number = -number;
	} else if (is_signed) {
		sign = spec->plus ? '+' : spec->space ? ' ' : 0;
	}
	do {
		text[length++] = digits[number % base];
		number /= base;
	} while (number);
	total = length + !!sign;
	if (!spec->left && !spec->zero)
		put_padding(out, spec->width, total, ' ');
	if (sign)
		put_char(out, sign);
	if (!spec->left && spec->zero)
		put_padding(out, spec->width, total, '0');
	while (length)
		put_char(out, text[--length]);
	if (spec->left)
		put_padding(out, spec->width, total, ' ');
}

/* Copy memory that may not be there; how much could be copied. */
static u64 read_memory(void *to, u64 from, u64 len)
{
	struct uxdp_iovec target = {to, len}, source = {(const void *)from, len};
	s64 copied = process_vm_readv(getpid(), &target, 1, &source, 1, 0);

	return copied < 0 ? 0 : copied;
}

/* Reads page by page, since what is read at once is all or nothing in a page. */
static u32 read_string(char *to, u64 from, u32 size)
{
	u32 have = 0;

	while (have + 1 < size) {
		u64 page = PAGE_SIZE - (from + have) % PAGE_SIZE;
		u64 part = page < size - 1 - have ? page : size - 1 - have;
		u64 copied = read_memory(to + have, from + have, part);

		for (u64 i = 0; i < copied; i++)
			if (!to[have + i])
				return have + i;
		if (copied < part)
			return 0;
		have += copied;
	}
	return have;
}

/* bstr_printf() does not count an address that begins behind the buffer's end. */
static void put_ip(struct output *out, u64 from, bool six, bool leading_zeros)
{
	struct spec decimal = {.zero = true, .width = leading_zeros ? 3 : 0},
		    hex = {.zero = true, .width = 2};
	u8 address[16] = {0};
	u32 bytes = six ? 16 : 4;

	if (out->length >= out->size)
		return;
	if (read_memory(address, from, bytes) != bytes)
		__builtin_memset(address, 0, sizeof(address));
	for (u32 i = 0; i < bytes; i++) {
		if (i && !six)
			put_char(out, '.');
		if (i && six && i % 2 == 0 && !leading_zeros)
			put_char(out, ':');
		put_number(out, six ? &hex : &decimal, address[i], false, six ? 16 : 10, false);
	}
}

static bool ends_specifier(char c)
{
	bool space = c == ' ' || (c >= '\t' && c <= '\r');
	bool punctuation = (c >= '!' && c <= '/') || (c >= ':' && c <= '@') ||
			   (c >= '[' && c <= '`') || (c >= '{' && c <= '~');

	return !c || space || punctuation;
}

static bool is_plain(char c)
{
	u8 byte = c;

	return (byte >= ' ' && byte <= '~') || (c >= '\t' && c <= '\r') || byte >= 0x80;
}

static bool is_alphanumeric(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

/* What follows %p; the position behind it, or 0 if it is not allowed. Letters and digits after it
 * are swallowed. */
static u32 put_pointer(struct output *out, const struct spec *spec, const char *format, u32 i,
		       u64 argument)
{
	struct spec wide = {
	    .left = spec->left, .zero = true, .width = spec->width ? spec->width : 16};

	switch (ends_specifier(format[i]) ? 0 : format[i]) {
	case 'x':
		i++;
		break;
	case 0:
	case 'K':
		i += !ends_specifier(format[i]);
		if (argument)
			argument = argument * 0x9e3779b97f4a7c15ull >> 32;
		break;
	case 's':
	case 'S':
	case 'B':
		put_char(out, '0');
		put_char(out, 'x');
		wide.width = 0;
		i++;
		break;
	case 'i':
	case 'I':
		if (format[i + 1] != '4' && format[i + 1] != '6')
			return 0;
		put_ip(out, argument, format[i + 1] == '6', format[i] == 'i');
		goto swallow;
	default:
		return 0;
	}
	put_number(out, &wide, argument, false, 16, false);
swallow:
	while (is_alphanumeric(format[i]))
		i++;
	return i;
}

/* One specifier; the position behind it, or 0 if it is not allowed. */
static u32 put_argument(struct output *out, const char *format, u32 i, u64 argument)
{
	struct spec spec = {0};
	char text[FORMAT_STRING];
	bool is_signed;
	u32 longs = 0;

	for (;; i++) {
		if (format[i] == '0')
			spec.zero = true;
		else if (format[i] == '+')
			spec.plus = true;
		else if (format[i] == '-')
			spec.left = true;
		else if (format[i] == ' ')
			spec.space = true;
		else
			break;
	}
	for (; format[i] >= '0' && format[i] <= '9'; i++)
		spec.width =
		    spec.width < FORMAT_BYTES ? spec.width * 10 + (format[i] - '0') : spec.width;

	if (format[i] == 'p' && (format[i + 1] == 'k' || format[i + 1] == 'u') &&
	    format[i + 2] == 's')
		i += 2;
	else if (format[i] == 'p')
		return put_pointer(out, &spec, format, i + 1, argument);
	if (format[i] == 's') {
		if (!ends_specifier(format[i + 1]))
			return 0;
		put_text(out, &spec, text, read_string(text, argument, sizeof(text)));
		return i + 1;
	}
	if (format[i] == 'c') {
		text[0] = argument;
		put_text(out, &spec, text, 1);
		return i + 1;
	}
	for (; longs < 2 && format[i] == 'l'; longs++)
		i++;
	is_signed = format[i] == 'd' || format[i] == 'i';
	if (!is_signed && format[i] != 'u' && format[i] != 'x' && format[i] != 'X')
		return 0;
	if (!longs)
		argument = is_signed ? (u64)(s64)(s32)argument : (u32)argument;
	put_number(out, &spec, argument, is_signed, format[i] == 'x' || format[i] == 'X' ? 16 : 10,
		   format[i] == 'X');
	return i + 1;
}

/*
 * Write the formatted text and a 0 to the buffer, as much as fits into size bytes; how long it
 * would be, or -EINVAL.
 */
UXDP_COLD s64 format_text(char *buffer, u64 size, const char *format, u32 format_size,
			  const u64 *arguments, u32 num_arguments)
{
	struct output out = {.buffer = buffer, .size = size};
	u32 used = 0, end = 0;

	while (end < format_size && format[end])
		end++;
	if (end == format_size)
		return -EINVAL;
	for (u32 i = 0; i < end;) {
		if (!is_plain(format[i]))
			return -EINVAL;
		if (format[i] != '%' || format[i + 1] == '%') {
			put_char(&out, format[i]);
			i += format[i] == '%' ? 2 : 1;
			continue;
		}
		if (used == num_arguments)
			return -EINVAL;
		i = put_argument(&out, format, i + 1, arguments[used++]);
		if (!i)
			return -EINVAL;
	}
	if (size)
		buffer[out.length < size ? out.length : size - 1] = 0;
	return out.length;
}

#endif
