/*	$NetBSD$	*/
/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * shim.c for a rump kernel, with what makes it a component of one: `cargo xtask
 * rump' compiles it.  The driver itself is initialised as a module is; rump(7)
 * does that before it comes to the components of the last phase.
 */
#include "shim.c"

#include <sys/vfs_syscalls.h>

#include <rump-sys/kern.h>
#include <rump-sys/vfs.h>

/* A rump kernel has no MAKEDEV(8): the folder and the control device. */
RUMP_COMPONENT(RUMP_COMPONENT_POSTINIT)
{
	devmajor_t major = dm_shim_cmajor();
	int error;

	if (major < 0)
		panic("dm: not initialised");
	error = do_sys_mkdir("/dev/mapper", 0755, UIO_SYSSPACE);
	if (error == 0 || error == EEXIST)
		error = rump_vfs_makedevnodes(S_IFCHR, "/dev/mapper/control", 0,
		    major, 0, 1);
	if (error != 0)
		panic("dm: no /dev/mapper/control: error %d", error);
}
