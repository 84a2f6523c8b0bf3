# Names and uuids: what is taken, what is too long, renaming.
quick

create one
create one
create two uuid TWO
create three uuid TWO
create four uuid ONE
names
info one
info two
info uuid:TWO
info uuid:NONE
info none
info -
# Renaming.
rename one eins
info one
info eins
rename eins two
rename eins eins
differs EBUSY ok a name that a device has already costs nothing to give it
rename nothing something
rename two zwei
info zwei
names
# Setting a uuid: once.
set-uuid eins EINS
info eins
set-uuid eins ANOTHER
set-uuid zwei ANOTHER
set-uuid nothing X
info uuid:EINS
# Names that are none, and the longest.
create ""
create "a/b"
create "a b"
create "x"*127
create u uuid "u"*128
rename eins ""
rename eins "a/b"
rename eins "z"*127
rename four "z"*128
rename four "z"*127
names
remove uuid:TWO
remove none
remove-all
names
# A path would be no path to it.
create "."
differs ok EINVAL newer Linuxes refuse it too
remove "."
differs ok ENXIO as above
create one
rename uuid:ONE two
remove one
