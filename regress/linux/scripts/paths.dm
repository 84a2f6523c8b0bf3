# Components by path and by number: the table says the number.
disk a 512
disk b 512

make d
  0 64 linear %a 0
  64 64 striped 2 8 %a 64 %b 64
table d
deps d
read d 0 128
load d
  0 64  linear @a   8
table d inactive
clear d
load d
  0 64 linear %a 8 
table d inactive
