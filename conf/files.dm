# SPDX-License-Identifier: BSD-2-Clause
# The driver for a kernel whose configuration says `pseudo-device dm', in the
# terms of config(5). It takes the place of the C driver's sys/dev/dm/files.dm:
# in sys/conf/files, the one line
#
#	include "dev/dm/files.dm"
#
# becomes
#
#	include "@DIR@/files.dm"
#
# where @DIR@ is the folder that `cargo xtask kernel' makes; it writes this file
# there with the path filled in. `aes' is for the target crypt: see files.rustdm.

prefix	"@DIR@"

defpseudodev	dm: aes

file	dm_pseudo.c	dm
object	rustdm.o	dm

prefix
