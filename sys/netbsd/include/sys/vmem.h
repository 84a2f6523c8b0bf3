/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Stands in for a NetBSD kernel header that the bundled set lacks; what the
 * driver needs and no more.
 */

#ifndef _SYS_VMEM_H_
#define _SYS_VMEM_H_
typedef struct vmem vmem_t;
typedef unsigned int vm_flag_t;
typedef uintptr_t vmem_addr_t;
typedef size_t vmem_size_t;
#endif
