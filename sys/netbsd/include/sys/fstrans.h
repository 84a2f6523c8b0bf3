/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Stands in for a NetBSD kernel header that the bundled set lacks; what the
 * driver needs and no more.
 */

#ifndef _SYS_FSTRANS_H_
#define _SYS_FSTRANS_H_
struct mount;
int	vfs_suspend(struct mount *, int);
void	vfs_resume(struct mount *);
#endif
