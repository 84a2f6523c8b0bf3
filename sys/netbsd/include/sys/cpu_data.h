/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Stands in for a NetBSD kernel header that the bundled set lacks; what the
 * driver needs and no more.
 */

#ifndef _SYS_CPU_DATA_H_
#define _SYS_CPU_DATA_H_
#include <sys/sched.h>
#include <sys/condvar.h>
#include <sys/pcu.h>
#include <sys/queue.h>
#include <sys/kcpuset.h>
#include <sys/intr.h>
/* Not the real size: struct cpu_info must stay opaque. */
struct cpu_data {
	struct schedstate_percpu cpu_schedstate;
	struct lwp *cpu_idlelwp;
};
#define	ci_schedstate	ci_data.cpu_schedstate
#endif
