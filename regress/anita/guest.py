"""What the guest is given, what it is told to do, and what comes back.

One raw disk image carries both: a tar archive of the tests at its start, which
the guest unpacks, and one of the results from RESULTS on, which the guest
writes.
"""

import io
import os
import re
import tarfile

TESTS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "atf")

MEGABYTE = 1 << 20
# Where the results begin, in megabytes, and what there is room for in all.
RESULTS, ROOM = 96, 128

# What the guest does with the archive. It is itself in it, so that the console,
# which takes no long lines, sees short commands only.
SCRIPT = """\
#!/bin/sh
# Builds the tests and runs them; the results are in ./results.
cd "$(dirname "$0")" || exit 1
mkdir results
cc -std=gnu99 -O -o h_dm h_dm.c || exit 1
tests=$(sed -n 's/^tp: //p' Atffile)
for program in $tests; do
	{ echo '#!/usr/bin/atf-sh'; cat $program.sh; } >$program
	chmod 755 $program
done
if [ -f dm.kmod ]; then
	DM_KMOD=$(pwd)/dm.kmod
	export DM_KMOD
	modload $DM_KMOD || exit 1
fi
selected=$(cat selected)
atf-run ${selected:-$tests} >results/test.tps
atf-report -o ticker:results/report <results/test.tps
dmesg >results/dmesg
exit 0
"""


def programs(tests):
    """The test programs that a folder's Atffile names."""
    try:
        with open(os.path.join(tests, "Atffile"), encoding="ascii") as atffile:
            return re.findall(r"^tp: (\S+)$", atffile.read(), re.MULTILINE)
    except OSError:
        return []


def selected(tests, select):
    """Checks the names of what to run; they go to atf-run as they are.

    Raises ValueError for a name that is none.
    """
    known = programs(tests)
    for name in select:
        program, _, case = name.partition(":")
        if program not in known:
            raise ValueError(f"there is no test program {program}: there are {', '.join(known)}")
        if case and not re.fullmatch(r"\w+", case):
            raise ValueError(f"{case} is no name of a test case")
    return list(select)


def files(options):
    """(name in the archive, contents) of all that the guest needs."""
    for name in sorted(os.listdir(options.tests)):
        if name == "Atffile" or name.endswith((".sh", ".c")):
            yield name, contents(os.path.join(options.tests, name))
    if options.module:
        yield "dm.kmod", contents(options.module)
    names = selected(options.tests, options.select)
    yield "selected", "".join(f"{name}\n" for name in names).encode()
    yield "run", SCRIPT.encode()


def contents(path):
    """What a file holds."""
    with open(path, "rb") as file:
        return file.read()


def write_exchange(path, options):
    """Makes the disk image with the tests on it."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in files(options):
            entry = tarfile.TarInfo(f"dmtests/{name}")
            entry.size = len(data)
            entry.mode = 0o755
            tar.addfile(entry, io.BytesIO(data))
    if archive.tell() > RESULTS * MEGABYTE:
        raise ValueError("the tests are larger than the place for them")
    with open(path, "wb") as image:
        image.write(archive.getvalue())
        image.truncate(ROOM * MEGABYTE)


def commands(disk):
    """What root types, one after the other. `disk` is the guest's name for the image."""
    node = f"/dev/r{disk}"
    return [
        "cd /var/tmp",
        f"tar xf {node}",
        "sh dmtests/run",
        "tar cf results.tar -C dmtests results",
        f"dd if=results.tar of={node} bs=1m seek={RESULTS} conv=sync",
    ]


def read_results(path):
    """atf-report's report as the guest wrote it; None if it wrote none."""
    with open(path, "rb") as image:
        image.seek(RESULTS * MEGABYTE)
        archive = io.BytesIO(image.read())
    try:
        with tarfile.open(fileobj=archive, mode="r:") as tar:
            report = tar.extractfile("results/report")
            return report.read().decode("utf-8", "replace") if report else None
    except (tarfile.TarError, KeyError):
        return None
