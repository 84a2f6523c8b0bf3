# delay: the three forms of its table, data through it, and what is refused.
needs delay
disk a 1024
disk b 1024

make d
  0 100 delay @a 0 0
table d
status d
read d 0 100 by 8
write d 3 40
remove d
make d
  0 100 delay @a 0 20 @b 8 30
table d
status d
deps d
read d 0 16
write d 0 100 by 50
image b 0 128
flush d
status d
remove d
make d
  0 100 delay @a 0 00010 @b 8 0 @a 16 10
table d
write d 90 10
read d 0 8
flush d
remove d

# One that waits long is let go by a suspend.
make d
  0 100 delay @a 0 600000 @b 0 600000
start r read d 0 8
pending r
until d * 1 0 0
start w write d 8 8
pending w
until d * 1 1 0
suspend d
finish r
finish w
status d
resume d
remove d

try d
  0 1024 delay
try d
  0 1024 delay @a 0
try d
  0 1024 delay @a 0 500 @b
try d
  0 1024 delay @a 0 500 @b 0
try d
  0 1024 delay @a 0 500 @b 0 300 @a
try d
  0 1024 delay @a 0 500 @b 0 300 @a 0
try d
  0 1024 delay @a 0 500 @b 0 300 @a 0 0 1
try d
  0 1024 delay @a x 500
try d
  0 1024 delay @a 0 x
try d
  0 1024 delay @a 0 -1
try d
  0 1024 delay @a 0 500 @b x 300
try d
  0 1024 delay @a 1 500
make d
  0 1024 delay @a 0 4294967295
table d
remove d
