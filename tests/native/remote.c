// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * A process of another machine that does what it is told: for code compiled for aarch64, under
 * qemu's user-mode emulation, on a machine of another kind.
 *
 * Freestanding, so that it needs no C library of that machine; it defines those of its functions
 * that native code calls. Commands come on standard input, replies go to standard output, all as
 * struct command of little-endian 64-bit words, with bytes behind it where the comment says so.
 */
#include <stddef.h>
#include <stdint.h>

typedef uint64_t u64;

enum { READ = 63, WRITE = 64, EXIT = 93, CLOCK_GETTIME = 113, GETPID = 172, MPROTECT = 226 };
enum { MMAP = 222, PROCESS_VM_READV = 270 };
enum { PROT_RW = 3, PROT_RX = 5, MAP_FLAGS = 0x2 | 0x10 | 0x20 | 0x4000 };

struct command {
	u64 what;
	u64 address;
	u64 arguments[4];
};

enum command_kind {
	COMMAND_MAP = 1,  /* arguments[0] bytes of zeros; reply: the address, or -errno */
	COMMAND_PUT = 2,  /* arguments[0] bytes follow; no reply */
	COMMAND_GET = 3,  /* reply: arguments[0] bytes */
	COMMAND_CODE = 4, /* arguments[0] bytes become executable; reply: 0, or -errno */
	COMMAND_CALL = 5, /* a function with four arguments; reply: its result */
};

static long call6(long number, u64 a, u64 b, u64 c, u64 d, u64 e, u64 f)
{
	register u64 x8 __asm__("x8") = (u64)number;
	register u64 x0 __asm__("x0") = a;
	register u64 x1 __asm__("x1") = b;
	register u64 x2 __asm__("x2") = c;
	register u64 x3 __asm__("x3") = d;
	register u64 x4 __asm__("x4") = e;
	register u64 x5 __asm__("x5") = f;

	__asm__ volatile("svc 0"
			 : "+r"(x0)
			 : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
			 : "memory");
	return (long)x0;
}

void *memcpy(void *to, const void *from, size_t len)
{
	for (size_t i = 0; i < len; i++)
		((char *)to)[i] = ((const char *)from)[i];
	return to;
}

void *memmove(void *to, const void *from, size_t len)
{
	if (to <= from)
		return memcpy(to, from, len);
	while (len--)
		((char *)to)[len] = ((const char *)from)[len];
	return to;
}

void *memset(void *to, int value, size_t len)
{
	for (size_t i = 0; i < len; i++)
		((char *)to)[i] = (char)value;
	return to;
}

int memcmp(const void *one, const void *other, size_t len)
{
	const unsigned char *a = one, *b = other;

	for (size_t i = 0; i < len; i++)
		if (a[i] != b[i])
			return a[i] < b[i] ? -1 : 1;
	return 0;
}

int bcmp(const void *one, const void *other, size_t len)
{
	return memcmp(one, other, len);
}

long clock_gettime(int clock, void *result)
{
	return call6(CLOCK_GETTIME, (u64)clock, (u64)result, 0, 0, 0, 0);
}

long write(int fd, const void *data, size_t len)
{
	return call6(WRITE, (u64)fd, (u64)data, len, 0, 0, 0);
}

long getpid(void)
{
	return call6(GETPID, 0, 0, 0, 0, 0, 0);
}

long process_vm_readv(int pid, u64 local, u64 locals, u64 remote, u64 remotes, u64 flags)
{
	return call6(PROCESS_VM_READV, (u64)pid, local, locals, remote, remotes, flags);
}

long syscall(long number, u64 a, u64 b, u64 c)
{
	return call6(number, a, b, c, 0, 0, 0);
}

static void end(int status)
{
	for (;;)
		call6(EXIT, (u64)status, 0, 0, 0, 0, 0);
}

static void receive(u64 address, u64 len)
{
	while (len) {
		long got = call6(READ, 0, address, len, 0, 0, 0);

		if (got <= 0)
			end(got < 0);
		address += (u64)got;
		len -= (u64)got;
	}
}

static void send(u64 address, u64 len)
{
	while (len) {
		long put = write(1, (const void *)address, len);

		if (put <= 0)
			end(1);
		address += (u64)put;
		len -= (u64)put;
	}
}

typedef u64 (*function)(u64, u64, u64, u64);

static u64 obey(const struct command *command)
{
	const u64 *arguments = command->arguments;

	switch (command->what) {
	case COMMAND_MAP:
		return (u64)call6(MMAP, command->address, arguments[0], PROT_RW, MAP_FLAGS, -1ull,
				  0);
	case COMMAND_CODE:
		return (u64)call6(MPROTECT, command->address, arguments[0], PROT_RX, 0, 0, 0);
	case COMMAND_CALL:
		return ((function)command->address)(arguments[0], arguments[1], arguments[2],
						    arguments[3]);
	}
	end(2);
	return 0;
}

__attribute__((noreturn)) void _start(void)
{
	struct command command;
	u64 result;

	for (;;) {
		receive((u64)&command, sizeof(command));
		if (command.what == COMMAND_PUT) {
			receive(command.address, command.arguments[0]);
		} else if (command.what == COMMAND_GET) {
			send(command.address, command.arguments[0]);
		} else {
			result = obey(&command);
			send((u64)&result, sizeof(result));
		}
	}
}
