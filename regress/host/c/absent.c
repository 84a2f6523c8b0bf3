/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Functions that inline code of NetBSD's headers names and that the driver
 * never calls: there is no pmap(9) in a Unix process.
 */

#include <stdlib.h>

#define	ABSENT(name)	void name(void); void name(void) { abort(); }

ABSENT(pmap_clear_attrs)
ABSENT(pmap_page_remove)
ABSENT(pmap_pv_clear_attrs)
ABSENT(pmap_pv_remove)
ABSENT(pmap_remove)
ABSENT(pmap_write_protect)
