# A table is changed while the device is open and has held I/O.
quick
disk a 512
disk b 512

make d
  0 256 linear @a 0
open d write
info d
suspend d
start first write d 0 16
# Not what the first writes: they go on together.
start second read d 16 8
pending first
pending second
load d
  0 256 linear @b 100
image a 0 16
resume d
finish first
finish second
image a 0 16
image b 100 16
read d 0 32
# Smaller than it was, while it is open.
load d
  0 64 linear @a 0
resume d
size d
read d 48 32
read d 64 8
close d
size d
read d 48 32
# A suspended device with held I/O gets the table it had.
suspend d noflush
start third write d 0 8
pending third
resume d
finish third
image a 0 8
# Suspended without freezing.
suspend d nolockfs
info d
resume d nolockfs
info d
