/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Stands in for a NetBSD kernel header that the bundled set lacks; what the
 * driver needs and no more.
 */

#ifndef _LIB_LIBKERN_LIBKERN_H_
#define _LIB_LIBKERN_LIBKERN_H_
#define	KASSERT(e)		((void)0)
#define	KASSERTMSG(e, ...)	((void)0)
#define	KDASSERT(e)		((void)0)
#define	CTASSERT(x)		_Static_assert(x, #x)
void	*memcpy(void *, const void *, size_t);
void	*memmove(void *, const void *, size_t);
void	*memset(void *, int, size_t);
int	memcmp(const void *, const void *, size_t);
size_t	strlen(const char *);
size_t	strlcpy(char *, const char *, size_t);
int	snprintf(char *, size_t, const char *, ...) __printflike(3, 4);
#endif
