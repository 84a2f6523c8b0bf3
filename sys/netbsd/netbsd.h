/*	$NetBSD$	*/
/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Everything of NetBSD that the driver binds to.  bindgen reads this file and
 * shim.c includes it, so that both see the same structures.
 */
#include <sys/cdefs.h>
#ifdef DM_BINDGEN
/* libclang recurses without end in NetBSD's bit-field __CTASSERT. */
#undef __CTASSERT
#define	__CTASSERT(x)	_Static_assert(x, #x)
#endif

#include <sys/param.h>
#include <sys/types.h>
#include <sys/systm.h>
#include <sys/kernel.h>
#include <sys/errno.h>
#include <sys/atomic.h>
#include <sys/buf.h>
#include <sys/callout.h>
#include <sys/condvar.h>
#include <sys/conf.h>
#include <sys/cpu.h>
#include <sys/device.h>
#include <sys/disk.h>
#include <sys/disklabel.h>
#include <sys/dkio.h>
#include <sys/fcntl.h>
#include <sys/fstrans.h>
#include <sys/intr.h>
#include <sys/ioctl.h>
#include <sys/iostat.h>
#include <sys/kauth.h>
#include <sys/kmem.h>
#include <sys/kthread.h>
#include <sys/lwp.h>
#include <sys/md5.h>
#include <sys/module.h>
#include <sys/mount.h>
#include <sys/mutex.h>
#include <sys/namei.h>
#include <sys/pool.h>
#include <sys/proc.h>
#include <sys/reboot.h>
#include <sys/rmd160.h>
#include <sys/sha1.h>
#include <sys/sha2.h>
#include <sys/stat.h>
#include <sys/sysctl.h>
#include <sys/timevar.h>
#include <sys/uio.h>
#include <sys/vnode.h>
#include <sys/xcall.h>
#include <miscfs/specfs/specdev.h>
#include <prop/proplib.h>

/* The driver's one ioctl on /dev/mapper/control, as libdevmapper defines it. */
#define	NETBSD_DM_IOCTL	_IOWR(0xfd, 0, struct plistref)
