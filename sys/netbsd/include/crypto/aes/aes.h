/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Stands in for a NetBSD kernel header that the bundled set lacks; what the
 * driver needs and no more.
 */

#ifndef _CRYPTO_AES_AES_H_
#define _CRYPTO_AES_AES_H_
#include <sys/types.h>
/* Round keys. */
struct aesenc {
	uint32_t	aese_words[60] __aligned(16);
};
struct aesdec {
	uint32_t	aesd_words[60] __aligned(16);
};
/* These return the number of rounds, which the others want. */
uint32_t aes_setenckey128(struct aesenc *, const uint8_t[static 16]);
uint32_t aes_setenckey192(struct aesenc *, const uint8_t[static 24]);
uint32_t aes_setenckey256(struct aesenc *, const uint8_t[static 32]);
uint32_t aes_setdeckey128(struct aesdec *, const uint8_t[static 16]);
uint32_t aes_setdeckey192(struct aesdec *, const uint8_t[static 24]);
uint32_t aes_setdeckey256(struct aesdec *, const uint8_t[static 32]);
void	aes_enc(const struct aesenc *, const uint8_t[static 16],
	    uint8_t[static 16], uint32_t);
void	aes_dec(const struct aesdec *, const uint8_t[static 16],
	    uint8_t[static 16], uint32_t);
#endif
