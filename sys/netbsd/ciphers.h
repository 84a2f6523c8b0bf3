/*	$NetBSD$	*/
/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The kernel's AES, for shim.c.  A kernel of NetBSD 9 or before has none that
 * suits, and one of a later release has it only if something in its
 * configuration asks for it, as cgd(4) does and conf/files.rustdm; where there
 * is none dm_shim_aes() says so, and nothing else here may be called.
 *
 * In a kernel the functions are weak references, which ld(1) leaves 0 where
 * nobody defines them.  kobj(9) takes no module with such references: a module
 * looks them up in the kernel's own symbols, which stay.
 */

#if defined(__has_include)
#if __has_include(<crypto/aes/aes.h>)
#define	DM_AES
#endif
#endif

#ifdef DM_AES
#include <crypto/aes/aes.h>
#include <crypto/aes/aes_cbc.h>
#include <crypto/aes/aes_xts.h>

#define	DM_AES_FUNCTIONS(each)						\
	each(aes_setenckey128) each(aes_setenckey192) each(aes_setenckey256) \
	each(aes_setdeckey128) each(aes_setdeckey192) each(aes_setdeckey256) \
	each(aes_enc) each(aes_dec) each(aes_cbc_enc) each(aes_cbc_dec)	\
	each(aes_xts_enc) each(aes_xts_dec)

#if defined(_MODULE) && !defined(DM_HOSTED) && !defined(_RUMPKERNEL)
#include <sys/ksyms.h>

#define	DM_AES_MEMBER(name)	__typeof__(&name) f_##name;
static struct { DM_AES_FUNCTIONS(DM_AES_MEMBER) } dm_aes;
#define	DM_AES_CALL(name)	(*dm_aes.f_##name)

bool
dm_shim_aes(void)
{
	unsigned long address;

	/* Who comes second finds the same addresses. */
#define	DM_AES_FIND(name)						\
	if (ksyms_getval("netbsd", #name, &address, KSYMS_PROC) != 0)	\
		return false;						\
	dm_aes.f_##name = (__typeof__(&name))address;
	DM_AES_FUNCTIONS(DM_AES_FIND)
	return true;
}
#else
#pragma weak aes_setenckey128
#pragma weak aes_setenckey192
#pragma weak aes_setenckey256
#pragma weak aes_setdeckey128
#pragma weak aes_setdeckey192
#pragma weak aes_setdeckey256
#pragma weak aes_enc
#pragma weak aes_dec
#pragma weak aes_cbc_enc
#pragma weak aes_cbc_dec
#pragma weak aes_xts_enc
#pragma weak aes_xts_dec

#define	DM_AES_CALL(name)	name

#ifdef DM_HOSTED
bool	dm_hosted_aes(void);
#endif

bool
dm_shim_aes(void)
{

#ifdef DM_HOSTED
	if (!dm_hosted_aes())
		return false;
#endif
#define	DM_AES_THERE(name)	&& name != NULL
	return true DM_AES_FUNCTIONS(DM_AES_THERE);
}
#endif

_Static_assert(sizeof(struct aesenc) <= DM_AES_KEYS &&
    sizeof(struct aesdec) <= DM_AES_KEYS, "round keys take more");
_Static_assert(__alignof__(struct aesenc) <= DM_AES_ALIGN &&
    __alignof__(struct aesdec) <= DM_AES_ALIGN, "round keys lie otherwise");

unsigned int
dm_shim_aes_setkey(bool decrypt, void *keys, const unsigned char *key,
    size_t bytes)
{

	switch (bytes) {
	case 16:
		return decrypt ? DM_AES_CALL(aes_setdeckey128)(keys, key) :
		    DM_AES_CALL(aes_setenckey128)(keys, key);
	case 24:
		return decrypt ? DM_AES_CALL(aes_setdeckey192)(keys, key) :
		    DM_AES_CALL(aes_setenckey192)(keys, key);
	case 32:
		return decrypt ? DM_AES_CALL(aes_setdeckey256)(keys, key) :
		    DM_AES_CALL(aes_setenckey256)(keys, key);
	default:
		return 0;
	}
}

void
dm_shim_aes_block(bool decrypt, void *keys, unsigned int rounds,
    const unsigned char *in, unsigned char *out)
{

	if (decrypt)
		DM_AES_CALL(aes_dec)(keys, in, out, rounds);
	else
		DM_AES_CALL(aes_enc)(keys, in, out, rounds);
}

void
dm_shim_aes_cbc(bool decrypt, void *keys, unsigned int rounds,
    const unsigned char *in, unsigned char *out, size_t bytes,
    unsigned char *iv)
{

	if (decrypt)
		DM_AES_CALL(aes_cbc_dec)(keys, in, out, bytes, iv, rounds);
	else
		DM_AES_CALL(aes_cbc_enc)(keys, in, out, bytes, iv, rounds);
}

void
dm_shim_aes_xts(bool decrypt, void *keys, unsigned int rounds,
    const unsigned char *in, unsigned char *out, size_t bytes,
    unsigned char *tweak)
{

	if (decrypt)
		DM_AES_CALL(aes_xts_dec)(keys, in, out, bytes, tweak, rounds);
	else
		DM_AES_CALL(aes_xts_enc)(keys, in, out, bytes, tweak, rounds);
}
#else
bool
dm_shim_aes(void)
{

	return false;
}

unsigned int
dm_shim_aes_setkey(bool decrypt __unused, void *keys __unused,
    const unsigned char *key __unused, size_t bytes __unused)
{

	return 0;
}

void
dm_shim_aes_block(bool decrypt __unused, void *keys __unused,
    unsigned int rounds __unused, const unsigned char *in __unused,
    unsigned char *out __unused)
{
}

void
dm_shim_aes_cbc(bool decrypt __unused, void *keys __unused,
    unsigned int rounds __unused, const unsigned char *in __unused,
    unsigned char *out __unused, size_t bytes __unused,
    unsigned char *iv __unused)
{
}

void
dm_shim_aes_xts(bool decrypt __unused, void *keys __unused,
    unsigned int rounds __unused, const unsigned char *in __unused,
    unsigned char *out __unused, size_t bytes __unused,
    unsigned char *tweak __unused)
{
}
#endif
