/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Stands in for a NetBSD kernel header that the bundled set lacks; what the
 * driver needs and no more.
 */

#ifndef _SYS_KAUTH_H_
#define _SYS_KAUTH_H_
typedef struct kauth_cred *kauth_cred_t;
typedef uint32_t kauth_action_t;
#define	NOCRED		((kauth_cred_t)-1)
#define	FSCRED		((kauth_cred_t)-2)
/* The value is the hosted kernel's own; a kernel takes its own header's. */
enum kauth_system_req { KAUTH_SYSTEM_DEVMAPPER = 1 };
#define	_KAUTH_STANDIN	1
enum { KAUTH_SYSTEM_DEVMAPPER_ACTION = 1 };
enum kauth_device_req { KAUTH_REQ_DEVICE_RAWIO_SPEC_RW = 3 };
struct vnode;
kauth_cred_t kauth_cred_get(void);
int	kauth_authorize_system(kauth_cred_t, kauth_action_t, enum kauth_system_req,
	    void *, void *, void *);
int	kauth_authorize_device_spec(kauth_cred_t, enum kauth_device_req,
	    struct vnode *);
#endif
