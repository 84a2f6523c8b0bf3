/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Stands in for a NetBSD kernel header that the bundled set lacks; what the
 * driver needs and no more.
 */

#ifndef _SYS_CPU_H_
#define _SYS_CPU_H_
#include <machine/cpu.h>
extern u_int ncpu;
/* A static inline that looks into struct cpu_data, which is not known here. */
#define	DM_NO_CPU_INDEX
u_int	cpu_index(struct cpu_info *);
bool	cpu_intr_p(void);
bool	cpu_softintr_p(void);
#endif
