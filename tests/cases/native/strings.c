// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Strings compared, measured and searched, in maps, on the stack, in constants and global data;
 * letters of Latin-1, strings of 64 KiB and more, and addresses of nothing. */
#include "kfuncs.h"

extern int bpf_strcmp(const char *one, const char *other) __ksym;
extern int bpf_strcasecmp(const char *one, const char *other) __ksym;
extern int bpf_strchr(const char *text, char c) __ksym;
extern int bpf_strchrnul(const char *text, char c) __ksym;
extern int bpf_strnchr(const char *text, size_t count, char c) __ksym;
extern int bpf_strrchr(const char *text, int c) __ksym;
extern int bpf_strlen(const char *text) __ksym;
extern int bpf_strnlen(const char *text, size_t count) __ksym;
extern int bpf_strspn(const char *text, const char *accept) __ksym;
extern int bpf_strcspn(const char *text, const char *reject) __ksym;
extern int bpf_strstr(const char *text, const char *part) __ksym;
extern int bpf_strnstr(const char *text, const char *part, size_t count) __ksym;

struct huge {
	char text[65540];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct huge);
} huge SEC(".maps");

static const char letters[] = "abABab\xe4\xc4\xd7\xf7zZaa-";
char global[16] = "global";

SEC("xdp")
int strings(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), key = 0;
	struct huge *large = bpf_map_lookup_elem(&huge, &key);
	char one[9] = {}, other[9] = {}, part[3] = {};

	if (!large)
		return XDP_ABORTED;
	for (int i = 0; i < 8; i++) {
		one[i] = letters[word >> i & 15];
		other[i] = letters[word >> (i + (word & 1)) & 14];
	}
	one[word >> 9 & 7] = 0;
	part[0] = letters[word >> 12 & 7];
	part[1] = word >> 15 & 1 ? letters[word >> 16 & 15] : 0;
	note(0, bpf_strcmp(one, other));
	note(1, bpf_strcasecmp(one, other));
	note(2, bpf_strcmp(one, one));
	note(3, bpf_strcasecmp(global, "GLOBAL"));
	note(4, bpf_strchr(other, part[0]));
	note(5, bpf_strchr(other, 0));
	note(6, bpf_strchrnul(other, part[0]));
	note(7, bpf_strnchr(other, word >> 20 & 15, part[0]));
	note(8, bpf_strrchr(other, part[0]));
	note(9, bpf_strrchr(other, part[0] & 0xff));
	note(10, bpf_strrchr(one, 0));
	note(11, bpf_strlen(one) + bpf_strlen(global) * 32);
	note(12, bpf_strnlen(other, word >> 20 & 15));
	note(13, bpf_strspn(one, "abAB") + bpf_strspn(one, part) * 16);
	note(14, bpf_strcspn(one, "zZ-") + bpf_strcspn(one, part) * 16);
	note(15, bpf_strstr(other, part));
	note(16, bpf_strnstr(other, part, word >> 24 & 15));
	note(17, bpf_strstr(other, ""));
	note(18, bpf_strnstr(other, other + 3, 8));
	note(19, bpf_strnstr(other, other + 3, 7));
	if (word & 3)
		return XDP_PASS;
	for (int i = 65408; i < 65539; i++)
		((volatile char *)large->text)[i] = 'x';
	note(20, bpf_strlen(large->text + 65400));
	note(21, bpf_strlen(NULL));
	note(22, bpf_strcmp(one, (const char *)77));
	note(23, bpf_strstr(NULL, one));
	note(24, bpf_strnlen(one, 0));
	note(25, bpf_strnlen((const char *)1, 0));
	return XDP_DROP;
}

char filled[65600] = {[0 ... 65599] = 'a'};

/* All of a long string is a byte: what looks for another gives up. */
SEC("xdp")
int long_strings(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx);

	if (word & 63)
		return XDP_PASS;
	note(26, bpf_strlen(filled));
	note(27, bpf_strnlen(filled, 65536));
	note(28, bpf_strnlen(filled, 65535));
	note(29, bpf_strchr(filled, 'b'));
	note(30, bpf_strnchr(filled, 65535, 'b'));
	note(31, bpf_strchrnul(filled, 'b'));
	note(32, bpf_strrchr(filled, 'a'));
	note(33, bpf_strcmp(filled, filled + 1));
	note(34, bpf_strspn(filled, "ab"));
	note(35, bpf_strspn("b", filled));
	note(36, bpf_strstr(filled, "b"));
	note(37, bpf_strnstr(filled, "ab", 70000));
	return XDP_TX;
}
