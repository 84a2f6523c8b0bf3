# Minors that are asked for.
create five minor 5
create again minor 5
differs ENXIO EBUSY the error that says what is wrong
create far minor 200
info five
names
remove five
create again minor 5
create large minor 4095
names
remove-all
names
