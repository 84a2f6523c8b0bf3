# verity: images that veritysetup has formatted are read; a table's and a status' form; a wrong block of the data, of
# the tree's lowest level and of its top, and what can still be read then; the options.
quick
needs verity
disk a 2048
disk h 64 zero
disk b 2128
disk c 512
disk t 160 zero
disk z 256 zero
disk zh 64 zero
prepare veritysetup format --salt=00112233445566778899aabbccddeeff --uuid=00000000-0000-0000-0000-000000000001 "$a" "$h"
prepare veritysetup format --salt=- --uuid=00000000-0000-0000-0000-000000000002 --data-blocks=256 --hash-offset=1048576 --hash=sha512 "$b" "$b"
prepare veritysetup format --salt=ff --uuid=00000000-0000-0000-0000-000000000003 --format=0 --hash=sha1 --data-block-size=512 --hash-block-size=1024 "$c" "$t"
prepare veritysetup format --salt=01 --uuid=00000000-0000-0000-0000-000000000004 "$z" "$zh"

make v readonly
  0 2048 verity 1 @a @h 4096 4096 256 1 sha256 7a1ae0c77b04d104fb0c6ac9bb6a0da92ef2ad2bb84adb7555637cf4427c6cda 00112233445566778899AABBCCDDEEFF
table v
status v
deps v
size v
info v
read v 0 2048 by 128
read v 72 16 by 8
flush v
differs ok "open EROFS" NetBSD flushes by way of a node that is open for writing
write v 0 8
status v
# Suspended and resumed it goes on.
suspend v
resume v
read v 0 2048 by 128

# A wrong block of the data: it, and what is read with it.
write a 80 8
read v 72 24 by 8
status v
read v 0 2048 by 128
# Found once, it stays so.
suspend v
resume v
status v
# Another table has found nothing.
load v readonly
  0 2048 verity 1 @a @h 4096 4096 256 1 sha256 7a1ae0c77b04d104fb0c6ac9bb6a0da92ef2ad2bb84adb7555637cf4427c6cda 00112233445566778899aabbccddeeff 1 ignore_corruption
resume v
status v
table v
read v 64 32 by 8
status v

# The tree behind the data; a line that does not cover all data blocks.
make w readonly
  0 1024 verity 1 @b @b 4096 4096 256 257 sha512 2d50d4a36ce005d5fd3e30d6fc0ce1d591f3e720b777d10429a13d5bad4141fa011b1860d0267ffe927bd838185a3194188b1055e38ce352ec3f606d5ae99f7e - 2 check_at_most_once restart_on_corruption
table w
deps w
read w 0 1024 by 64
read w 0 1024 by 64
status w
remove w

# The first format, with digests packed, and blocks of other sizes.
make w readonly
  0 512 verity 0 @c @t 512 1024 512 1 sha1 67d50e7f6e5609fc7fb8c9587a347b2e977263df FF 1 panic_on_corruption
table w
read w 0 512 by 32
read w 3 7 by 1
status w
remove w

# A wrong block at the tree's bottom: the half of the data that hangs on it. One at its top: all.
remove v
write h 24 8
make v readonly
  0 2048 verity 1 @a @h 4096 4096 256 1 sha256 7a1ae0c77b04d104fb0c6ac9bb6a0da92ef2ad2bb84adb7555637cf4427c6cda 00112233445566778899aabbccddeeff
read v 0 64 by 64
status v
read v 1016 16 by 8
status v
remove v
write h 8 8
make v readonly
  0 2048 verity 1 @a @h 4096 4096 256 1 sha256 7a1ae0c77b04d104fb0c6ac9bb6a0da92ef2ad2bb84adb7555637cf4427c6cda 00112233445566778899aabbccddeeff
status v
read v 0 2048 by 128
status v
remove v

# Zeroes that are not: read as such all the same, if the table says so.
write z 8 8
make v readonly
  0 256 verity 1 @z @zh 4096 4096 32 1 sha256 0a4bd1e5bdaa5c3b51b0b3a970e214ddfb3ae3a7dd7f53467b70e82050feef7e 01
read v 0 32 by 8
status v
load v readonly
  0 256 verity 1 @z @zh 4096 4096 32 1 sha256 0a4bd1e5bdaa5c3b51b0b3a970e214ddfb3ae3a7dd7f53467b70e82050feef7e 01 1 Ignore_Zero_Blocks
resume v
table v
read v 0 256 by 64
status v
remove v
