/*	$NetBSD$	*/
/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Parts that only C can express: macros, static inlines and variadic functions
 * of the kernel, each under a name that Rust can call.
 */
#ifndef DM_SHIM_H
#define	DM_SHIM_H

struct lwp;
struct vnode;

struct lwp	*dm_shim_curlwp(void);
bool		 dm_shim_in_thread(void);
unsigned int	 dm_shim_cpu(void);
unsigned int	 dm_shim_ncpu(void);
int		 dm_shim_authorize(void);
int		 dm_shim_process(void);
int		 dm_shim_hz(void);
void		 dm_shim_kernel_lock(void);
void		 dm_shim_kernel_unlock(void);
int		 dm_shim_namei(const char *, struct vnode **);
dev_t		 dm_shim_rdev(const struct vnode *);
bool		 dm_shim_isblock(const struct vnode *);
int		 dm_shim_may_write(struct vnode *);
int		 dm_shim_sync(struct mount *);
void		*dm_shim_pool_get(pool_cache_t, int);
void		 dm_shim_pool_put(pool_cache_t, void *);
void		 dm_shim_print(const char *);
void		 dm_shim_panic(const char *) __dead;
void		 dm_shim_restart(const char *) __dead;
void		 dm_shim_mutex_init(kmutex_t *);
void		 dm_shim_mutex_init_bio(kmutex_t *);
int		 dm_shim_copyin_dictionary(const struct plistref *, u_long, size_t,
		    prop_dictionary_t *);
bool		 dm_shim_pmf_register(device_t);
int		 dm_shim_detach(unsigned int);
bool		 dm_shim_attached(unsigned int);
void		 dm_shim_revoke(unsigned int);
void		 dm_shim_barrier(void);
void		 dm_shim_frugal(bool);
int		 dm_shim_thread(void *, const char *, struct lwp **);
size_t		 dm_shim_uspace(void);

/*
 * The kernel's AES (ciphers.h).  Keys are DM_AES_KEYS bytes at a multiple of
 * DM_AES_ALIGN.
 */
#define	DM_AES_KEYS	240
#define	DM_AES_ALIGN	16
bool		 dm_shim_aes(void);
unsigned int	 dm_shim_aes_setkey(bool, void *, const unsigned char *, size_t);
void		 dm_shim_aes_block(bool, void *, unsigned int,
		    const unsigned char *, unsigned char *);
void		 dm_shim_aes_cbc(bool, void *, unsigned int,
		    const unsigned char *, unsigned char *, size_t,
		    unsigned char *);
void		 dm_shim_aes_xts(bool, void *, unsigned int,
		    const unsigned char *, unsigned char *, size_t,
		    unsigned char *);

/* The driver's tables (devsw(9), autoconf(9), sysctl(9)), defined in shim.c. */
int		 dm_shim_devsw_attach(void);
void		 dm_shim_devsw_detach(void);
int		 dm_shim_config_attach(void);
int		 dm_shim_config_detach(void);
void		 dm_shim_cfdata_init(cfdata_t, unsigned int);
devmajor_t	 dm_shim_bmajor(void);
devmajor_t	 dm_shim_cmajor(void);
int		 dm_shim_sysctl_attach(void);
void		 dm_shim_sysctl_detach(void);
void		 dm_shim_disk_init(struct disk *, const char *);
#endif
