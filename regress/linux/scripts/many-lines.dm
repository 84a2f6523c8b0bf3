# Tables of many lines.
disk a 65536
disk b 65536

make d
  times 600 : {8*i} 8 linear @a {64*i}
size d
info d
table d
read d 4790 10
read d 0 4800 by 100
write d 3 4790 by 101
deps d
load d
  times 300 : {16*i} 8 linear @b {64*i}
  times 300 : {8+16*i} 8 linear @a {64*i}
differs EINVAL ok lines come in any order from NetBSD's tools
load d
  times 700 : {3*i} 3 linear @b {5*i}
resume d
read d 0 2100 by 97
write d 1 2098 by 127
