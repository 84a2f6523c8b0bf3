/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Stands in for a NetBSD kernel header that the bundled set lacks; what the
 * driver needs and no more.
 */

#ifndef _SYS_KTHREAD_H_
#define _SYS_KTHREAD_H_
#include <sys/proc.h>
#define	KTHREAD_MPSAFE		0x02
#define	KTHREAD_MUSTJOIN	0x10
int	kthread_create(pri_t, int, struct cpu_info *, void (*)(void *), void *,
	    struct lwp **, const char *, ...);
void	kthread_exit(int) __dead;
int	kthread_join(struct lwp *);
#endif
