# snapshot-merge: other snapshots of the origin keep its moment; areas that become empty one after the other; a snapshot again in the middle;
# snapshot-origin beside it.
needs snapshot-merge
disk a 1000
disk c 1100 zero
disk d 2000 zero private
disk e 2000 zero

make o
  0 1000 snapshot-origin @a
make t
  0 1000 snapshot @a @d P 4
make s
  0 1000 snapshot @a @c P 1
# Two areas, and some of a third; in order, backwards, and here and there.
write s 100 40 by 1
write s 99 1
write s 98 1
write s 97 1
write s 500 1
write s 300 1
write s 20 22 by 1
write t 0 4
write t 602 1
status s
status t
suspend o
suspend s
load o
  0 1000 snapshot-merge @a @c P 1
load s
  0 1000 error
resume o
resume s
until o "* 2/1100 2"
status t
read o 0 1000 by 50
read t 0 1000 by 50
image a 0 1000
image c 0 80
write o 400 60 by 2
status t
read t 0 1000 by 50
remove s

# Beside a snapshot-origin, and a second one of the same.
load o
  0 1000 snapshot-origin @a
suspend o
resume o
make s
  0 1000 snapshot @a @c PO 1
write s 0 9 by 1
write o 4 9 by 1
status s
remove s
make m
  0 1000 snapshot-merge @a @c PO 1
until m "* 2/1100 2"
write o 700 3
write m 710 3
read o 0 1000 by 50
read m 0 1000 by 50
read t 0 1000 by 50
status t
table m
remove m
remove o
swap

# A store that an invalid snapshot left: the origin shows.
make o
  0 1000 snapshot-origin @a
make t
  0 1000 snapshot @a @d P 4
read t 0 1000 by 50
remove t
remove o
make x
  0 8 linear @c 0
write x 0 1 like c
remove x
make m
  0 1000 snapshot-merge @a @e P 8
status m
table m
read m 0 100
write m 0 100
read m 0 100
image e 0 16
remove m
image a 0 1000
