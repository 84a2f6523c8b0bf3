# unstriped: one stripe of what striped dealt out, read and written by both ways.
needs striped unstriped
disk a 1024
disk b 600

make s
  0 192 striped 3 8 @a 0 @a 256 @b 0
make u
  0 64 unstriped 3 8 1 @s 0
table u
status u
deps u
size u
read u 0 64 by 3
write u 5 40
read s 0 192 by 100
write s 8 8
read u 0 64 by 64
remove u
make u
  0 64 unstriped 3 8 0 @s 0
read u 0 64
remove u
make u
  0 64 unstriped 3 8 2 @s 0
write u 0 64
read s 0 192 by 128
image b 0 64
remove u
# A chunk that is no power of two, an offset, behind another line.
make v
  0 5 linear @b 500
  5 60 unstriped 2 6 1 @a 24
table v
read v 0 65 by 7
write v 3 50
image a 0 200
try w
  0 60 unstriped 2 7 0 @a 0
try w
  0 64 unstriped 0 8 0 @a 0
try w
  0 64 unstriped 2 0 0 @a 0
try w
  0 64 unstriped 2 8 x @a 0
try w
  0 64 unstriped 2 8 0 @a
try w
  0 64 unstriped 2 8 0 @a 0 0
try w
  0 64 unstriped 2 8 0 @a x
try w
  0 64 unstriped x 8 0 @a 0
try w
  0 64 unstriped 2 8 0 /dev/nothing-here 0
differs "load EINVAL" "load ENOENT" NetBSD has an error for a path at which there is nothing
message v 5 hello
