# verity: tables that are refused, by the error; no tree is looked at when a table is loaded.
needs verity
disk a 2048
disk h 64
disk k 2048 block 4096

try d
  0 2048 verity 1 @a @h 4096 4096 256 1 sha256 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff -
try d readonly
  0 2048 verity 1 @a @h 4096 4096 256 1 sha256 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff -
try d readonly
  0 2048 verity 1 @a @h 4096 4096 256 1 sha256 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff
try d readonly
  0 2048 verity
try d readonly
  0 2048 verity 2 @a @h 4096 4096 256 1 sha256 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff -
try d readonly
  0 2048 verity x @a @h 4096 4096 256 1 sha256 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff -
try d readonly
  0 2048 verity 1 /dev/nosuch @h 4096 4096 256 1 sha256 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff -
try d readonly
  0 2048 verity 1 @a /dev/nosuch 4096 4096 256 1 sha256 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff -
try d readonly
  0 2048 verity 1 @a @h 4095 4096 256 1 sha256 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff -
try d readonly
  0 2048 verity 1 @a @h 256 4096 256 1 sha256 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff -
try d readonly
  0 2048 verity 1 @a @h 0 4096 256 1 sha256 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff -
try d readonly
  0 2048 verity 1 @a @h 8192 4096 128 1 sha256 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff -
differs "load EINVAL" "ok" our data blocks may be larger than a page
try d readonly
  0 2048 verity 1 @a @h 4096 3 256 1 sha256 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff -
try d readonly
  0 2048 verity 1 @a @h 4096 0 256 1 sha256 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff -
try d readonly
  0 2048 verity 1 @a @h 4096 8192 256 1 sha256 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff -
try d readonly
  0 2048 verity 1 @a @a 4096 1048576 256 0 sha256 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff -
differs ok "load EINVAL" our hash blocks are at most those that veritysetup makes
try d readonly
  0 2048 verity 1 @k @h 2048 4096 512 1 sha256 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff -
try d readonly
  0 2048 verity 1 @a @k 4096 2048 256 1 sha256 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff -
try d readonly
  0 2048 verity 1 @a @h 4096 4096 255 1 sha256 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff -
try d readonly
  0 2048 verity 1 @a @h 4096 4096 300 1 sha256 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff -
try d readonly
  0 4096 verity 1 @a @h 4096 4096 512 1 sha256 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff -
try d readonly
  0 2047 verity 1 @a @h 4096 4096 256 1 sha256 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff -
try d readonly
  0 2048 verity 1 @a @h 4096 4096 0 1 sha256 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff -
try d readonly
  0 2048 verity 1 @a @h 4096 4096 x 1 sha256 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff -
try d readonly
  0 2048 verity 1 @a @h 4096 4096 18446744073709551615 1 sha256 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff -
try d readonly
  0 2048 verity 1 @a @h 4096 4096 2305843009213693952 1 sha256 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff -
try d readonly
  0 2048 verity 1 @a @h 4096 4096 1125899906842624 1 sha256 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff -
try d readonly
  0 2048 verity 1 @a @h 4096 4096 256 5 sha256 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff -
try d readonly
  0 2048 verity 1 @a @h 4096 4096 256 6 sha256 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff -
try d readonly
  0 2048 verity 1 @a @h 4096 4096 256 18446744073709551615 sha256 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff -
try d readonly
  0 2048 verity 1 @a @h 4096 4096 256 2251799813685247 sha256 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff -
try d readonly
  0 2048 verity 1 @a @h 4096 4096 256 x sha256 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff -
try d readonly
  0 2048 verity 1 @a @h 4096 4096 256 1 sha257 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff -
try d readonly
  0 2048 verity 1 @a @h 4096 4096 256 1 SHA256 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff -
try d readonly
  0 2048 verity 1 @a @h 4096 4096 256 1 sha1 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff -
try d readonly
  0 2048 verity 1 @a @h 4096 4096 256 1 sha256 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff00 -
try d readonly
  0 2048 verity 1 @a @h 4096 4096 256 1 sha256 g0112233445566778899aabbccddeeff00112233445566778899aabbccddeeff -
try d readonly
  0 8 verity 1 @a @h 512 512 8 1 sha512 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff -
try d readonly
  0 2048 verity 1 @a @h 4096 4096 256 1 sha256 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff 0
try d readonly
  0 2048 verity 1 @a @h 4096 4096 256 1 sha256 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff 0g
try d readonly
  0 2048 verity 1 @a @h 4096 4096 256 1 sha256 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff --
try d readonly
  0 2048 verity 1 @a @h 4096 4096 256 1 sha256 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff - 0
try d readonly
  0 2048 verity 1 @a @h 4096 4096 256 1 sha256 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff - x
try d readonly
  0 2048 verity 1 @a @h 4096 4096 256 1 sha256 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff - 1
try d readonly
  0 2048 verity 1 @a @h 4096 4096 256 1 sha256 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff - 1 what
try d readonly
  0 2048 verity 1 @a @h 4096 4096 256 1 sha256 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff - 2 ignore_corruption panic_on_corruption
try d readonly
  0 2048 verity 1 @a @h 4096 4096 256 1 sha256 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff - 2 ignore_corruption ignore_corruption
try d readonly
  0 2048 verity 1 @a @h 4096 4096 256 1 sha256 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff - 2 ignore_zero_blocks ignore_zero_blocks
try d readonly
  0 2048 verity 1 @a @h 4096 4096 256 1 sha256 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff - 2 CHECK_AT_MOST_ONCE PANIC_ON_CORRUPTION
try d readonly
  0 2048 verity 1 @a @h 4096 4096 256 1 sha256 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff - 1 ignore_corruption more
differs "ok" "load EINVAL" words behind the options could be meant to be some
try d readonly
  0 2048 verity 1 @a @h 4096 4096 256 1 sha256 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff - 1 try_verify_in_tasklet
differs "ok" "load EINVAL" version 1.7.0 has no such option
try d readonly
  0 2048 verity 1 @a @h 4096 4096 256 1 sha256 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff - 8 use_fec_from_device @a fec_start 0 fec_blocks 256 fec_roots 2
try d readonly
  0 2048 verity 1 @a @h 4096 4096 256 1 sha256 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff - 2 root_hash_sig_key_desc nosuch
differs "load ENOKEY" "load EINVAL" signatures are refused, whatever keys there are
