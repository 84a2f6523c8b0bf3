# Devices and disks that take no writes.
quick
disk a 512
disk r 512 readonly

make d readonly
  0 64 linear @a 0
info d
read d 0 8
write d 0 8
discard d 0 8
open d
info d
close d
open d write
close d
differs ok "not open" it could not be opened
load d
  0 64 linear @a 8
info d
resume d
info d
write d 0 8
image a 8 8
info d inactive
load d readonly
  0 64 linear @a 16
# Asked about the inactive table, the answer is about that.
info d
info d inactive
resume d
info d inactive
info d
write d 0 8
read d 0 8
make z readonly
  0 64 zero
write z 0 8
# A disk that takes none.
make w readonly
  0 64 linear @r 0
info w
read w 0 8
write w 0 8
make both readonly
  0 64 linear @a 0
  64 64 linear @r 0
read both 60 8
try v
  0 64 linear @r 0
differs ok "load EROFS" our tables are refused where each write would fail
try v
  0 64 linear @a 0
  64 64 linear @r 0
differs ok "load EROFS" as above
