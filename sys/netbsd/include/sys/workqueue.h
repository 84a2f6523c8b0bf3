/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Stands in for a NetBSD kernel header that the bundled set lacks; what the
 * driver needs and no more.
 */

#ifndef _SYS_WORKQUEUE_H_
#define _SYS_WORKQUEUE_H_
/* A member of struct buf: its size counts. */
struct work {
	void *wk_dummy;
};
#endif
