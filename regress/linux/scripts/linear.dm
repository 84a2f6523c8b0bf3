# One linear line: text, data, and where the data go.
quick
needs linear
disk a 2048
disk b 1000

make d
  0 100 linear @a 10
  100 51 linear @b 949
table d
status d
info d
deps d
size d
read d 0 151 by 8
write d 90 20
read d 80 40
discard d 0 8
read d 0 16
flush d
suspend d
info d
resume d
remove d
info d
