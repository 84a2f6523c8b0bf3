/* SPDX-License-Identifier: BSD-2-Clause */
/* Stands in for a NetBSD kernel header that the bundled set lacks; what the driver needs and no more. */

#ifndef _SYS_SYSTM_H_
#define _SYS_SYSTM_H_
#include <lib/libkern/libkern.h>

typedef int (*copyin_t)(const void *, void *, size_t);
typedef int (*copyout_t)(const void *, void *, size_t);
int	copyin(const void *, void *, size_t);
int	copyout(const void *, void *, size_t);
int	devenodev(dev_t, ...);
int	seltrue(dev_t, int, struct lwp *);
void	panic(const char *, ...) __dead __printflike(1, 2);
void	printf(const char *, ...) __printflike(1, 2);
void	_kernel_lock(int);
void	_kernel_unlock(int, int *);
#define	KERNEL_LOCK(count, lwp)		_kernel_lock(count)
#define	KERNEL_UNLOCK_ONE(lwp)		_kernel_unlock(1, NULL)
#endif
