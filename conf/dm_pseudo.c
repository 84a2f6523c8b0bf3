/*	$NetBSD$	*/
/* SPDX-License-Identifier: BSD-2-Clause */
/* shim.c for a kernel whose configuration says `pseudo-device dm'. */
#define	DM_PSEUDO_DEVICE
#include "shim.c"
