/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Stands in for a NetBSD kernel header that the bundled set lacks; what the
 * driver needs and no more.
 */

#ifndef _SYS_TIMEVAR_H_
#define _SYS_TIMEVAR_H_
#include <sys/time.h>
void	getmicrouptime(struct timeval *);
#endif
