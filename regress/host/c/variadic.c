/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The kernel's functions with a variable argument list.  Each formats its
 * arguments and hands the text, or the list as an array, to Rust.
 */

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

void	dm_host_print(const char *);
void	dm_host_panic(const char *) __attribute__((__noreturn__));
char	*dm_host_strdup(const char *);
void	*dm_host_prop_string(const char *);
int	dm_host_kthread_create(void (*)(void *), void *, void **, const char *);
int	dm_host_sysctl_createv(void *, int, const void *, const void **, int, int,
	    const char *, const char *, void *, uint64_t, void *, size_t,
	    const int *, size_t);

#define	LINE	2048

#define	FORMAT(buf, fmt) do {						\
	va_list ap;							\
	va_start(ap, fmt);						\
	(void)vsnprintf(buf, sizeof(buf), fmt, ap);			\
	va_end(ap);							\
} while (0)

/* printf(9): to the console, however the machine was booted. */
int	printf(const char *, ...);
int
printf(const char *fmt, ...)
{
	char buf[LINE];

	FORMAT(buf, fmt);
	dm_host_print(buf);
	return 0;
}

/*
 * aprint_normal(9), aprint_error(9): print nothing, as on the console of a
 * machine that was booted with -q or -z.  What must be read there goes by way
 * of printf(9).
 */
#define	APRINT(name)							\
void	name(const char *, ...);					\
void									\
name(const char *fmt, ...)						\
{									\
	(void)fmt;							\
}

APRINT(aprint_normal)
APRINT(aprint_error)

void	panic(const char *, ...) __attribute__((__noreturn__));
void
panic(const char *fmt, ...)
{
	char buf[LINE];

	FORMAT(buf, fmt);
	dm_host_panic(buf);
}

/* kmem(9): allocated with kmem_alloc, freed with kmem_strfree. */
char	*kmem_asprintf(const char *, ...);
char *
kmem_asprintf(const char *fmt, ...)
{
	char buf[LINE];

	FORMAT(buf, fmt);
	return dm_host_strdup(buf);
}

/* proplib(3) */
void	*prop_string_create_format(const char *, ...);
void *
prop_string_create_format(const char *fmt, ...)
{
	char buf[LINE];

	FORMAT(buf, fmt);
	return dm_host_prop_string(buf);
}

/* sysctl(9): the numbers end with CTL_EOL. */
#define	EOL	(-1)
#define	NAMES	12

int	sysctl_createv(void *, int, const void *, const void **, int, int,
	    const char *, const char *, void *, uint64_t, void *, size_t, ...);
int
sysctl_createv(void *log, int cflags, const void *parent, const void **out,
    int flags, int type, const char *name, const char *descr, void *func,
    uint64_t qv, void *newp, size_t newlen, ...)
{
	int names[NAMES];
	size_t n = 0;
	va_list ap;

	va_start(ap, newlen);
	for (;;) {
		int v = va_arg(ap, int);
		if (v == EOL || n == NAMES)
			break;
		names[n++] = v;
	}
	va_end(ap);
	return dm_host_sysctl_createv(log, cflags, parent, out, flags, type,
	    name, descr, func, qv, newp, newlen, names, n);
}

int	kthread_create(int, int, void *, void (*)(void *), void *, void **,
	    const char *, ...);
int
kthread_create(int pri, int flags, void *cpu, void (*func)(void *), void *arg,
    void **lwp, const char *fmt, ...)
{
	char buf[LINE];

	(void)pri;
	(void)flags;
	(void)cpu;
	FORMAT(buf, fmt);
	return dm_host_kthread_create(func, arg, lwp, buf);
}
