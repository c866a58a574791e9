/*
 * Loaded into linux.uml with LD_PRELOAD, where the processor has AMX.
 *
 * User-mode Linux 6.1 keeps 2,696 bytes of floating point state for each of its threads: room for all that comes
 * before AMX. The machine's kernel hands out that much with PTRACE_GETREGSET, but it takes nothing less than the
 * whole area back with PTRACE_SETREGSET (xstateregs_set in arch/x86/kernel/fpu/regset.c: EFAULT), and user-mode
 * Linux dies at its first process. So what it sets is padded with zeros to the size that the machine wants. The
 * header at the front says which parts are in use. Those of AMX never are: user-mode Linux cannot ask for them.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { PEEKTEXT = 1, PEEKUSER = 3, GETREGSET = 0x4204, SETREGSET = 0x4205, NT_X86_XSTATE = 0x202 };

static char area[1 << 16] __attribute__((aligned(64)));
static size_t whole_bytes;

static long set_xstate(long pid, const struct iovec *given)
{
	struct iovec whole = { area, sizeof(area) };

	if (!whole_bytes) {
		if (syscall(SYS_ptrace, GETREGSET, pid, NT_X86_XSTATE, &whole) < 0)
			return -1;
		whole_bytes = whole.iov_len;
	}
	if (given->iov_len >= whole_bytes)
		return syscall(SYS_ptrace, SETREGSET, pid, NT_X86_XSTATE, given);
	memcpy(area, given->iov_base, given->iov_len);
	memset(area + given->iov_len, 0, whole_bytes - given->iov_len);
	whole.iov_len = whole_bytes;
	return syscall(SYS_ptrace, SETREGSET, pid, NT_X86_XSTATE, &whole);
}

long ptrace(int request, ...)
{
	va_list more;
	va_start(more, request);
	long pid = va_arg(more, int);
	void *address = va_arg(more, void *), *data = va_arg(more, void *);
	va_end(more);

	if (request == SETREGSET && (long)address == NT_X86_XSTATE)
		return set_xstate(pid, data);
	if (request < PEEKTEXT || request > PEEKUSER)
		return syscall(SYS_ptrace, request, pid, address, data);
	long word; /* the system call stores it where `data` points, the library's function returns it */
	if (syscall(SYS_ptrace, request, pid, address, &word) < 0)
		return -1;
	errno = 0;
	return word;
}
