/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * bpf_trace_printk, bpf_trace_vprintk: one line for each call, to the descriptor
 * uxdp_worker.trace_fd.
 *
 * References: kernel/trace/bpf_trace.c; kernel/bpf/helpers.c, bpf_snprintf()
 */
#include "format.h"

#define MAX_VARARGS 12u /* MAX_BPRINTF_VARARGS */

extern s64 write(s32 fd, const void *data, u64 len);

UXDP_COLD s64 trace_line(const char *format, u32 format_size, const u64 *arguments,
			 u32 num_arguments)
{
	char line[FORMAT_BYTES + 1];
	s64 length = format_text(line, FORMAT_BYTES, format, format_size, arguments, num_arguments);
	u32 end = length < (s64)FORMAT_BYTES ? length : FORMAT_BYTES - 1;

	if (length < 0 || (s64)uxdp_worker.trace_fd < 0)
		return length;
	if (!end || line[end - 1] != '\n')
		line[end++] = '\n';
	/* A trace that cannot be written is lost, as it is when the kernel's buffer is full. */
	(void)!write(uxdp_worker.trace_fd, line, end);
	return length;
}

UXDP_HELPER s64 uxdp_helper_trace_printk(const char *format, u64 format_size, u64 first, u64 second,
					 u64 third)
{
	u64 arguments[] = {first, second, third};

	return trace_line(format, format_size, arguments, 3);
}

UXDP_HELPER s64 uxdp_helper_trace_vprintk(const char *format, u64 format_size, const void *data,
					  u64 data_len)
{
	u32 len = data_len;

	if (len % 8 || len > MAX_VARARGS * 8 || (len && !data))
		return -EINVAL;
	return trace_line(format, format_size, data, len / 8);
}

UXDP_HELPER s64 uxdp_helper_snprintf(char *text, u64 size, const char *format, const void *data,
				     u64 data_len)
{
	u32 len = data_len;
	s64 length;

	if (len % 8 || len > MAX_VARARGS * 8 || (len && !data))
		return -EINVAL;
	/* The verifier has seen to it that the format ends with a 0. */
	length = format_text(text, (u32)size, format, UINT32_MAX, data, len / 8);
	return length < 0 ? length : length + 1;
}
