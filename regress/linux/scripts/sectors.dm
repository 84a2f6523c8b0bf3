# Disks with sectors of 4096 bytes: what fits to them and what does not.
disk a 4096 block 4096
disk b 4096

make d
  0 64 linear @a 8
read d 0 64 by 8
write d 8 16
read d 1 8
read d 0 7
read d 4 8
write d 1 8
size d
remove d
try d
  0 64 linear @a 4
try d
  0 60 linear @a 8
try d
  0 64 linear @b 0
  64 64 linear @a 0
try d
  0 63 linear @b 0
  63 65 linear @a 0
make s
  0 128 striped 2 8 @a 0 @b 0
write s 8 16
read s 0 128
remove s
try s
  0 128 striped 2 4 @a 0 @b 0
differs ok "load EINVAL" no I/O across such a chunk could ever be done
