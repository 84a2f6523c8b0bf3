/* Stands in for a NetBSD kernel header that the bundled set lacks; what the driver needs and no more. */

#ifndef _SYS_KTHREAD_H_
#define _SYS_KTHREAD_H_
#include <sys/proc.h>
#endif
