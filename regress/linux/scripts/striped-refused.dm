# Lines that striped refuses.
needs striped
disk a 4096
disk b 4096

# A length that the stripes do not divide.
try d
  0 91 striped 3 5 @a 0 @b 7 @b 1000
# One that the chunk does not divide.
try d
  0 96 striped 2 5 @a 0 @b 0
try d
  0 90 striped 2 10 @a 0 @b 0
try d
  0 90 striped 2 9 @a 0 @b 0
# No chunk, or one that is no number, or none that fits.
try d
  0 64 striped 2 0 @a 0 @b 0
try d
  0 64 striped 2 x @a 0 @b 0
try d
  0 64 striped 2 -8 @a 0 @b 0
try d
  0 64 striped 2 4294967296 @a 0 @b 0
try d
  0 64 striped 2 18446744073709551616 @a 0 @b 0
try d
  0 64 striped 2 2147483648 @a 0 @b 0
try d
  0 64 striped 2 64 @a 0 @b 0
try d
  0 64 striped 2 32 @a 0 @b 0
# No stripes, or a wrong number of them.
try d
  0 64 striped 0 8
try d
  0 64 striped 0 8 @a 0
try d
  0 64 striped -1 8 @a 0
try d
  0 64 striped x 8 @a 0
try d
  0 64 striped 2 8 @a 0
try d
  0 64 striped 2 8 @a 0 @b
try d
  0 64 striped 2 8 @a 0 @b 0 more
try d
  0 64 striped 2 8 @a 0 @b 0 @a 64
try d
  0 64 striped 4294967297 8 @a 0
differs "load EINVAL" "load E2BIG" more stripes than there may be
try d
  0 64 striped 2
try d
  0 64 striped
# An offset that is no number, or beyond the disk.
try d
  0 64 striped 2 8 @a x @b 0
try d
  0 64 striped 2 8 @a -1 @b 0
try d
  0 64 striped 2 8 @a 0x10 @b 0
try d
  0 64 striped 2 8 @a +8 @b 0
try d
  0 64 striped 2 8 @a 4065 @b 0
try d
  0 64 striped 2 8 @a 4064 @b 4064
try d
  0 64 striped 2 8 @a 18446744073709551615 @b 0
try d
  0 64 striped 2 8 /dev/nothing-here 0 @b 0
names
