# Lines that linear, zero and error refuse, and tables that are refused as a whole.
quick
disk a 4096
disk odd 1001

# The words of linear.
try d
  0 64 linear
try d
  0 64 linear @a
try d
  0 64 linear @a 0 0
try d
  0 64 linear @a x
try d
  0 64 linear @a -1
try d
  0 64 linear @a 1x
try d
  0 64 linear @a 0x8
try d
  0 64 linear @a +1
try d
  0 64 linear @a 18446744073709551616
differs ok "load EINVAL" a number too large by one bit becomes 0 in Linux
try d
  0 64 linear @a 9223372036854775807
try d
  0 64 linear @a 36028797018963968
try d
  0 64 linear /dev/nothing-here 0
try d
  0 64 linear nothing 0
try d
  0 64 linear 0
try d
  0 64 linear /etc/passwd 0
try d
  0 64 linear 250:99 0
try d
  0 64 linear 7:x 0
# Beyond the disk's end, and up to it.
try d
  0 64 linear @a 4033
try d
  0 64 linear @a 4096
try d
  0 4097 linear @a 0
try d
  0 64 linear @a 4032
try d
  0 1001 linear @odd 0
try d
  0 1 linear @odd 1001
# The words of zero and error.
try d
  0 64 zero 1
try d
  0 64 error 1
# Targets that there are not.
try d
  0 64 nothing
differs "load EINVAL" "load ENOENT" NetBSD's error for a target that there is not
try d
  0 64 Linear @a 0
differs "load EINVAL" "load ENOENT" as above
# Lines: none, of no length, with a gap, an overlap, not from 0 on, in another order.
try d
try d
  0 0 zero
try d
  0 64 zero
  65 64 zero
try d
  0 64 zero
  63 64 zero
try d
  1 64 zero
try d
  0 64 zero
  0 64 zero
try d
  64 64 zero
  0 64 zero
differs "load EINVAL" ok lines come in any order from NetBSD's tools
# Numbers at the end of what there is.
try d
  0 18446744073709551615 zero
try d
  0 36028797018963968 zero
try d
  0 36028797018963967 zero
try d
  0 9223372036854775807 zero
try d
  0 18446744073709551615 zero
  18446744073709551615 2 zero
names
