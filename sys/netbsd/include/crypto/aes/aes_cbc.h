/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Stands in for a NetBSD kernel header that the bundled set lacks; what the
 * driver needs and no more.
 */

#ifndef _CRYPTO_AES_AES_CBC_H_
#define _CRYPTO_AES_AES_CBC_H_
#include <sys/types.h>
struct aesenc;
struct aesdec;
void	aes_cbc_enc(struct aesenc *, const uint8_t[static 16],
	    uint8_t[static 16], size_t, uint8_t[static 16], uint32_t);
void	aes_cbc_dec(struct aesdec *, const uint8_t[static 16],
	    uint8_t[static 16], size_t, uint8_t[static 16], uint32_t);
#endif
