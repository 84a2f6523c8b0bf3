/*	$NetBSD$	*/
/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The C side of the driver: wrappers for what is a macro, a static inline or
 * variadic in the kernel, and the tables that config(1), devsw(9), autoconf(9),
 * module(9) and sysctl(9) want to find in C, with their glue.  No policy.
 *
 * It is compiled against the headers of the kernel it goes into, and dm_layout.h
 * holds what the Rust object assumed of them: if this file does not compile with
 * "DM_LAYOUT", the object was built for another release of NetBSD.
 */

#include <sys/cdefs.h>
__KERNEL_RCSID(0, "$NetBSD$");

#include "netbsd.h"
#include <machine/vmparam.h>
#include "shim.h"

#define	DM_LAYOUT(cond, what)						\
	_Static_assert(cond, "the Rust object is for another NetBSD: " what)
#include "dm_layout.h"
#include "ciphers.h"

/* sys/entry */
extern dev_type_open(dmopen);
extern dev_type_close(dmclose);
extern dev_type_read(dmread);
extern dev_type_write(dmwrite);
extern dev_type_ioctl(dmioctl);
extern dev_type_strategy(dmstrategy);
extern dev_type_dump(dmdump);
extern dev_type_size(dmsize);
extern dev_type_discard(dmdiscard);
int	dm_match(device_t, cfdata_t, void *);
void	dm_attach(device_t, device_t, void *);
int	dm_detach(device_t, int);
int	dm_module_init(void);
int	dm_module_fini(void);
void	dm_minphys(struct buf *);
extern int dm_legacy_errors, dm_label_guard, dm_background_share, dm_device_count;
size_t	dm_counters(char *, size_t);
#ifdef DM_HOSTED
void	dm_host_frugal(bool);
#endif

/* sys/netbsd/kthread.rs */
void	dm_thread_main(void *);

static void
dm_thread(void *body)
{

	dm_thread_main(body);
#ifndef DM_HOSTED
	/* A hosted thread ends as its function does. */
	kthread_exit(0);
#endif
}

int
dm_shim_thread(void *body, const char *name, struct lwp **lp)
{

	return kthread_create(PRI_BIO, KTHREAD_MPSAFE | KTHREAD_MUSTJOIN, NULL,
	    dm_thread, body, lp, "%s", name);
}

size_t
dm_shim_uspace(void)
{

	return USPACE;
}

struct lwp *
dm_shim_curlwp(void)
{

	return curlwp;
}

bool
dm_shim_in_thread(void)
{

	return !cpu_intr_p() && !cpu_softintr_p();
}

#ifdef DM_HOSTED
unsigned int	dm_hosted_cpu(void);
#endif

unsigned int
dm_shim_cpu(void)
{

#if defined(DM_HOSTED)
	return dm_hosted_cpu();
#elif defined(DM_NO_CPU_INDEX)
	/*
	 * A module built without the kernel's own headers (`cargo xtask kmod`
	 * without --src) cannot look into struct cpu_info. Its address tells
	 * CPUs apart as well: multiplied, so that the structures' distance
	 * does not matter.
	 */
	return (unsigned int)((uintptr_t)curcpu() >> 6) * 2654435761U >> 16;
#else
	return cpu_index(curcpu());
#endif
}

unsigned int
dm_shim_ncpu(void)
{

	return ncpu;
}

int
dm_shim_authorize(void)
{

	return kauth_authorize_system(kauth_cred_get(), KAUTH_SYSTEM_DEVMAPPER,
	    0, NULL, NULL, NULL);
}

#ifdef DM_HOSTED
int	dm_hosted_process(void);
#endif

int
dm_shim_process(void)
{

#ifdef DM_HOSTED
	return dm_hosted_process();
#else
	return curproc->p_pid;
#endif
}

int
dm_shim_hz(void)
{

	return hz;
}

void
dm_shim_kernel_lock(void)
{

	KERNEL_LOCK(1, NULL);
}

void
dm_shim_kernel_unlock(void)
{

	KERNEL_UNLOCK_ONE(NULL);
}

int
dm_shim_namei(const char *path, struct vnode **vpp)
{

	return namei_simple_kernel(path, NSM_FOLLOW_NOEMULROOT, vpp);
}

dev_t
dm_shim_rdev(const struct vnode *vp)
{

	return vp->v_rdev;
}

bool
dm_shim_isblock(const struct vnode *vp)
{

	return vp->v_type == VBLK;
}

int
dm_shim_may_write(struct vnode *vp)
{

	return kauth_authorize_device_spec(kauth_cred_get(),
	    KAUTH_REQ_DEVICE_RAWIO_SPEC_RW, vp);
}

int
dm_shim_sync(struct mount *mp)
{
	int async, error;

	if (mp->mnt_flag & MNT_RDONLY)
		return 0;
	/* Of an asynchronous mount bwrite(9) would delay what is to be written now. */
	mutex_enter(mp->mnt_updating);
	async = mp->mnt_flag & MNT_ASYNC;
	mp->mnt_flag &= ~MNT_ASYNC;
	error = VFS_SYNC(mp, MNT_WAIT, kauth_cred_get());
	mp->mnt_flag |= async;
	mutex_exit(mp->mnt_updating);
	return error;
}

void *
dm_shim_pool_get(pool_cache_t pc, int flags)
{

	return pool_cache_get(pc, flags);
}

void
dm_shim_pool_put(pool_cache_t pc, void *item)
{

	pool_cache_put(pc, item);
}

void
dm_shim_print(const char *text)
{

	printf("%s", text);
}

void
dm_shim_panic(const char *text)
{

	panic("%s", text);
}

void
dm_shim_restart(const char *text)
{

	printf("%s\n", text);
	kern_reboot(RB_AUTOBOOT | RB_NOSYNC, NULL);
}

void
dm_shim_mutex_init(kmutex_t *mtx)
{

	mutex_init(mtx, MUTEX_DEFAULT, IPL_NONE);
}

void
dm_shim_mutex_init_bio(kmutex_t *mtx)
{

	mutex_init(mtx, MUTEX_DEFAULT, IPL_BIO);
}

int
dm_shim_copyin_dictionary(const struct plistref *ref, u_long cmd, size_t limit,
    prop_dictionary_t *dictp)
{

#if __NetBSD_Prereq__(11,0,0)
	return prop_dictionary_copyin_ioctl_size(ref, cmd, dictp, limit);
#else
	/* The kernel's own limit, 64 KiB, is all there is. */
	(void)limit;
	return prop_dictionary_copyin_ioctl(ref, cmd, dictp);
#endif
}

bool
dm_shim_pmf_register(device_t self)
{

	return pmf_device_register(self, NULL, NULL);
}

/* devsw(9) */

const struct bdevsw dm_bdevsw = {
	.d_open = dmopen,
	.d_close = dmclose,
	.d_strategy = dmstrategy,
	.d_ioctl = dmioctl,
	.d_dump = dmdump,
	.d_psize = dmsize,
	.d_discard = dmdiscard,
	.d_flag = D_DISK | D_MPSAFE
};

const struct cdevsw dm_cdevsw = {
	.d_open = dmopen,
	.d_close = dmclose,
	.d_read = dmread,
	.d_write = dmwrite,
	.d_ioctl = dmioctl,
	.d_stop = nostop,
	.d_tty = notty,
	.d_poll = nopoll,
	.d_mmap = nommap,
	.d_kqfilter = nokqfilter,
	.d_discard = dmdiscard,
	.d_flag = D_DISK | D_MPSAFE
};

static const struct dkdriver dm_dkdriver = {
	.d_strategy = dmstrategy,
	.d_minphys = dm_minphys
};

void
dm_shim_disk_init(struct disk *dk, const char *name)
{

	disk_init(dk, name, &dm_dkdriver);
}

static devmajor_t dm_bmajor = -1, dm_cmajor = -1;

int
dm_shim_devsw_attach(void)
{

	return devsw_attach("dm", &dm_bdevsw, &dm_bmajor, &dm_cdevsw,
	    &dm_cmajor);
}

void
dm_shim_devsw_detach(void)
{

	devsw_detach(&dm_bdevsw, &dm_cdevsw);
}

devmajor_t
dm_shim_bmajor(void)
{

	return bdevsw_lookup_major(&dm_bdevsw);
}

devmajor_t
dm_shim_cmajor(void)
{

	return cdevsw_lookup_major(&dm_cdevsw);
}

/* autoconf(9) */

CFATTACH_DECL3_NEW(dm, 0, dm_match, dm_attach, dm_detach, NULL, NULL, NULL,
    DVF_DETACH_SHUTDOWN);

#ifdef DM_PSEUDO_DEVICE
/* config(1) defines dm_cd and calls dmattach for a `pseudo-device dm'. */
extern struct cfdriver dm_cd;
void	dmattach(int);

void
dmattach(int n __unused)
{

	/* MODULE below initialises the driver, here as in a loaded module. */
}
#else
CFDRIVER_DECL(dm, DV_DISK, NULL);
#endif

int
dm_shim_config_attach(void)
{
	int error;

#ifndef DM_PSEUDO_DEVICE
	error = config_cfdriver_attach(&dm_cd);
	if (error)
		return error;
#endif
	error = config_cfattach_attach(dm_cd.cd_name, &dm_ca);
#ifndef DM_PSEUDO_DEVICE
	if (error)
		config_cfdriver_detach(&dm_cd);
#endif
	return error;
}

int
dm_shim_config_detach(void)
{
	int error;

	error = config_cfattach_detach(dm_cd.cd_name, &dm_ca);
#ifndef DM_PSEUDO_DEVICE
	if (error == 0) {
		error = config_cfdriver_detach(&dm_cd);
		/* All of the driver stays registered, or none of it. */
		if (error != 0)
			(void)config_cfattach_attach(dm_cd.cd_name, &dm_ca);
	}
#endif
	return error;
}

int
dm_shim_detach(unsigned int unit)
{
#if __NetBSD_Prereq__(10,99,12)
	/*
	 * config_detach_release takes the kernel lock itself, and calls
	 * ca_detach with it.
	 */
	device_t self = device_lookup_acquire(&dm_cd, unit);

	return self == NULL ? ENXIO : config_detach_release(self, DETACH_QUIET);
#else
	/*
	 * The kernel lock keeps the device_t from the lookup to the detach, and
	 * config_detach calls ca_detach with it.
	 */
	device_t self;
	int error;

	KERNEL_LOCK(1, NULL);
	self = device_lookup(&dm_cd, unit);
	error = self == NULL ? ENXIO : config_detach(self, DETACH_QUIET);
	KERNEL_UNLOCK_ONE(NULL);
	return error;
#endif
}

bool
dm_shim_attached(unsigned int unit)
{

	return device_lookup(&dm_cd, unit) != NULL;
}

void
dm_shim_revoke(unsigned int unit)
{

	vdevgone(bdevsw_lookup_major(&dm_bdevsw), unit, unit, VBLK);
	vdevgone(cdevsw_lookup_major(&dm_cdevsw), unit, unit, VCHR);
}

void
dm_shim_barrier(void)
{

	xc_barrier(0);
}

void
dm_shim_frugal(bool on __unused)
{

#ifdef DM_HOSTED
	dm_host_frugal(on);
#endif
}

void
dm_shim_cfdata_init(cfdata_t cf, unsigned int unit)
{

	cf->cf_name = dm_cd.cd_name;
	cf->cf_atname = dm_ca.ca_name;
	cf->cf_unit = unit;
	cf->cf_fstate = FSTATE_NOTFOUND;
}

/* module(9); a kernel that has the driver built in runs this too. */

MODULE(MODULE_CLASS_DRIVER, dm, NULL);

#ifdef DM_HOSTED
/* A Unix linker drops a link set that nothing refers to: the hosted kernel asks. */
const struct modinfo *dm_shim_modinfo(void);
const struct modinfo *
dm_shim_modinfo(void)
{

	return &dm_modinfo;
}
#endif

static int
dm_modcmd(modcmd_t cmd, void *arg __unused)
{

	switch (cmd) {
	case MODULE_CMD_INIT:
		return dm_module_init();
	case MODULE_CMD_FINI:
#ifdef DM_PSEUDO_DEVICE
		/*
		 * The tables are in the kernel's own, where devsw(9) does not
		 * know how to take them out: modunload of what is built in.
		 */
		return EBUSY;
#else
		return dm_module_fini();
#endif
	default:
		return ENOTTY;
	}
}

/* sysctl(9): hw.dm */

static struct sysctllog *dm_sysctllog;
static char dm_version_text[] = "4.16.0";

/* Takes values from least to most only. */
static int
dm_sysctl_within(SYSCTLFN_ARGS, int *variable, int least, int most)
{
	struct sysctlnode node = *rnode;
	int value = *variable, error;

	node.sysctl_data = &value;
	error = sysctl_lookup(SYSCTLFN_CALL(&node));
	if (error || newp == NULL)
		return error;
	if (value < least || value > most)
		return EINVAL;
	*variable = value;
	return 0;
}

static int
dm_sysctl_guard(SYSCTLFN_ARGS)
{
	return dm_sysctl_within(SYSCTLFN_CALL(rnode), &dm_label_guard, 0, 2);
}

static int
dm_sysctl_share(SYSCTLFN_ARGS)
{
	return dm_sysctl_within(SYSCTLFN_CALL(rnode), &dm_background_share, 1, 100);
}

/* Devices that come between the two calls may be left out: lines are whole. */
static int
dm_sysctl_counters(SYSCTLFN_ARGS)
{
	struct sysctlnode node = *rnode;
	size_t size = dm_counters(NULL, 0);
	char *text = kmem_zalloc(size, KM_SLEEP);
	int error;

	dm_counters(text, size);
	node.sysctl_data = text;
	node.sysctl_size = size;
	error = sysctl_lookup(SYSCTLFN_CALL(&node));
	kmem_free(text, size);
	return error;
}

int
dm_shim_sysctl_attach(void)
{
	const struct sysctlnode *dm;
	int error;

	error = sysctl_createv(&dm_sysctllog, 0, NULL, &dm, 0, CTLTYPE_NODE,
	    "dm", SYSCTL_DESCR("device mapper"), NULL, 0, NULL, 0,
	    CTL_HW, CTL_CREATE, CTL_EOL);
	if (error == 0)
		error = sysctl_createv(&dm_sysctllog, 0, &dm, NULL,
		    CTLFLAG_READWRITE, CTLTYPE_INT, "legacy_errors",
		    SYSCTL_DESCR("1: commands that fail return 0, as the C driver's do"),
		    NULL, 0, &dm_legacy_errors, 0, CTL_CREATE, CTL_EOL);
	if (error == 0)
		error = sysctl_createv(&dm_sysctllog, 0, &dm, NULL,
		    CTLFLAG_READWRITE, CTLTYPE_INT, "label_guard",
		    SYSCTL_DESCR("0: none, 1: guard components' labels, 2: refuse tables"),
		    dm_sysctl_guard, 0, NULL, 0, CTL_CREATE, CTL_EOL);
	if (error == 0)
		error = sysctl_createv(&dm_sysctllog, 0, &dm, NULL,
		    CTLFLAG_READWRITE, CTLTYPE_INT, "background_share",
		    SYSCTL_DESCR("percent of time for copying while there is other I/O"),
		    dm_sysctl_share, 0, NULL, 0, CTL_CREATE, CTL_EOL);
	if (error == 0)
		error = sysctl_createv(&dm_sysctllog, 0, &dm, NULL,
		    CTLFLAG_READONLY, CTLTYPE_STRING, "version",
		    SYSCTL_DESCR("protocol version"),
		    NULL, 0, dm_version_text, sizeof(dm_version_text),
		    CTL_CREATE, CTL_EOL);
	if (error == 0)
		error = sysctl_createv(&dm_sysctllog, 0, &dm, NULL,
		    CTLFLAG_READONLY, CTLTYPE_INT, "devices",
		    SYSCTL_DESCR("number of devices"),
		    NULL, 0, &dm_device_count, 0, CTL_CREATE, CTL_EOL);
	if (error == 0)
		error = sysctl_createv(&dm_sysctllog, 0, &dm, NULL,
		    CTLFLAG_READONLY, CTLTYPE_STRING, "counters",
		    SYSCTL_DESCR("I/O of each device: reads, writes, splits, held, failed"),
		    dm_sysctl_counters, 0, NULL, 0, CTL_CREATE, CTL_EOL);
	/* All of them or none. */
	if (error)
		sysctl_teardown(&dm_sysctllog);
	return error;
}

void
dm_shim_sysctl_detach(void)
{

	sysctl_teardown(&dm_sysctllog);
}
