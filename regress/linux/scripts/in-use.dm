# Devices that are in use: by an open node, by another table.
quick
disk a 512

make d
  0 256 linear @a 0
open d
info d
remove d
info d
remove d deferred
info d
names
close d
gone d
info d

make low
  0 256 linear @a 0
make high
  0 128 linear @low 64
info low
info high
deps high
table high
remove low
write high 0 16
read low 64 16
image a 64 16
rename low lower
table high
# While it waits to be removed it can be used, until it is closed.
open high write
remove high deferred
write high 0 8
load high
  0 128 zero
close high
gone high
# Linux lets go of what lies below a moment after the name is gone.
remove lower deferred
gone lower
names
# Opened twice.
make d
  0 8 zero
open d write
open d
info d
differs "open=2" "open=1" a block device is open once in NetBSD, however many have it open
close d
info d
close d
info d
remove-all
names
# All but what is in use goes.
make low
  0 8 zero
make high
  0 8 linear @low 0
make other
  0 8 zero
open other
remove-all
names
close other
remove-all
names
