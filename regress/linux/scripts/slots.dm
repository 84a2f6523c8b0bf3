# The two slots: load, clear, resume, load again; what each command says before and after.
quick
disk a 256
disk b 256

create d
info d
table d
status d
table d inactive
deps d
load d
  0 64 linear @a 0
info d
table d
table d inactive
status d inactive
deps d
deps d inactive
clear d
info d
table d inactive
load d
  0 64 linear @a 0
load d
  0 128 linear @b 0
  128 8 zero
table d inactive
resume d
info d
table d
size d
read d 0 136 by 64
# Resume while it is not suspended takes the new table.
load d
  0 64 linear @a 0
info d
table d
table d inactive
resume d
info d
table d
size d
read d 0 64
read d 60 8
read d 64 8
# Twice suspended, twice resumed.
suspend d
info d
suspend d
resume d
info d
resume d
clear d
clear d
info d
# A table that does not fit its disk: Linux sees it when it is resumed, and leaves the device suspended.
load d
  0 64 linear @a 255
differs ok EINVAL our tables are whole when they are loaded
resume d
differs EINVAL ok there is nothing to resume for us
resume d
info d
table d
# About a device that there is not.
load none
  0 8 zero
resume none
suspend none
clear none
table none
status none
deps none
remove none
# Without any table.
create empty
size empty
differs ENXIO "0 sectors" it can be opened, and has no size
resume empty
suspend empty
info empty
resume empty
differs EINVAL ok it ceases to be suspended (dm.4)
