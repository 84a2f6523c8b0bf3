# What is an event of a device and what is not: another name and a first uuid are, while it has a
# table; commands that change the table are none. `wait` returns at once for one that has been.
quick
disk a 2048

create d
info d
# Without an active table nobody is told.
rename d e
info e
load e
  0 1000 linear @a 0
info e
resume e
info e
load e
  0 1000 linear @a 8
suspend e
resume e
info e
clear e
rename e f
info f
wait f 0
rename f g
set-uuid g U-1
info g
wait g 0
wait g 2
