# snapshot: stores that are full (the last copy that Linux makes before it finds no room for an area is on f), at every place: between areas, at the last chunk, with P, PO and N; and
# invalid ones that are found.
needs snapshot
disk a 1000
disk c 20 zero
disk d 20 zero
disk e 20 zero
disk f 34 zero private
disk g 33 zero
disk h 36 zero
disk i 3 zero

make o
  0 1000 snapshot-origin @a
make s
  0 1000 snapshot @a @c P 1
make t
  0 1000 snapshot @a @d PO 1
make n
  0 1000 snapshot @a @e N 1
write o 0 17 by 1
status s
status t
status n
write o 17 1
status s
status t
status n
read s 0 1000 by 50
read t 0 1000 by 50
image c 0 20
# The store of n has room for two more.
write n 100 2 by 1
status n
write n 102 1
status n
read n 0 10
# Full, and the snapshot is written.
write o 500 1
status t
remove s
remove t
remove n
image c 0 20
image d 0 20
make s
  0 1000 snapshot @a @c P 1
status s
read s 0 8
table s
remove s
# PO: a write of the snapshot finds no room.
make t
  0 1000 snapshot @a @i PO 1
status t
write t 5 1
status t
write t 6 1
status t
write t 5 1
read t 0 1000 by 50
status t
remove t
image i 0 3
make t
  0 1000 snapshot @a @i PO 1
status t
read t 0 8
write o 700 1
status t
remove t
image i 0 3

# An area ends where the device does, or one sector before or behind it.
make s
  0 1000 snapshot @a @f P 1
make t
  0 1000 snapshot @a @g P 1
make n
  0 1000 snapshot @a @h P 1
write o 200 31 by 1
status s
status t
status n
write o 231 1
status s
status t
status n
write o 232 1
status s
status t
status n
write o 233 1
status s
status t
status n
