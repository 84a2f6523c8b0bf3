# SPDX-License-Identifier: BSD-2-Clause
"""The guest's side: the archive that it is given, the script that it runs, and the results.

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
# The place of the results on the image, in megabytes, and the image's size.
RESULTS, ROOM = 96, 128

# Exit statuses of the script, beside 0: why no test ran.
NO_COMPILER, NO_SYMBOLS, NO_MODULE, NO_ATF, SECURED = 3, 4, 5, 6, 7

# The word that the script's lines on the console begin with.
WORD = "dm-tests:"

# The script that the guest runs on the archive. It is in the archive, so that the console,
# which takes no long lines, sees short commands only. The loop at its end reads
# what atf-run(1) writes, in the format of atf-formats(5).
SCRIPT = f"""\
#!/bin/sh
# Builds the tests and runs them; the results are in ./results.
cd "$(dirname "$0")" || exit 1
rm -rf results
mkdir results || exit 1
say() {{ echo "{WORD} $*"; }}
for tool in atf-run atf-report atf-sh; do
	command -v $tool >/dev/null || exit {NO_ATF}
done
if [ ! -f h_dm ]; then
	cc -std=gnu99 -O -o h_dm h_dm.c >results/cc 2>&1 || exit {NO_COMPILER}
fi
for program in $(cat all); do
	{{
		echo '#!/usr/bin/atf-sh'
		cat $program.sh
		[ ! -f $program.only ] || cat $program.only
	}} >$program
	chmod 755 $program
done
if [ -f dm.kmod ]; then
	DM_KMOD=$(pwd)/dm.kmod
	export DM_KMOD
	[ "$(sysctl -n kern.securelevel)" -le 0 ] || exit {SECURED}
	(: </dev/ksyms) 2>/dev/null || exit {NO_SYMBOLS}
	modload $DM_KMOD >results/modload 2>&1 || exit {NO_MODULE}
fi
atf-run $(cat programs) | tee results/test.tps | while IFS=', ' read -r key _ name result _; do
	case $key in
	tp-start:)
		program=$name ;;
	tc-start:)
		say start $program:$name ;;
	tc-end:)
		say end $program:$name $result ;;
	esac
done
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


def cases(tests, program):
    """The test cases that a program has."""
    text = contents(os.path.join(tests, f"{program}.sh")).decode("utf-8", "replace")
    return re.findall(r"^(?:atf|dm)_test_case (\w+)", text, re.MULTILINE)


# What atf-run(1) may take to end a case whose time is over, in seconds.
END = 120


def limits(tests):
    """How many seconds each case may take that says so itself, by "PROGRAM:CASE".

    atf-run(1) ends it then, and says so.
    """
    found = {}
    for program in programs(tests):
        text = contents(os.path.join(tests, f"{program}.sh")).decode("utf-8", "replace")
        for case, seconds in re.findall(r"^(\w+)_timeout=(\d+)$", text, re.MULTILINE):
            found[f"{program}:{case}"] = int(seconds) + END
    return found


def selected(tests, select):
    """The programs to run, each with the cases to run, or with None for all of them.

    Raises ValueError for a program or a case that there is not.
    """
    known = programs(tests)
    if not select:
        return {program: None for program in known}
    chosen = {}
    for name in select:
        program, colon, case = name.partition(":")
        if program not in known:
            raise ValueError(f"there is no test program {program}: there are {', '.join(known)}")
        if not colon:
            chosen[program] = None
            continue
        there = cases(tests, program)
        if case not in there:
            raise ValueError(f"{program} has no test case `{case}': it has {', '.join(there)}")
        if program not in chosen:
            chosen[program] = [case]
        elif chosen[program] is not None and case not in chosen[program]:
            chosen[program].append(case)
    return chosen


def only(chosen):
    """What is added to a test program so that it has the chosen cases and no others."""
    adds = "".join(f"\tatf_add_test_case {case}\n" for case in chosen)
    return f"\natf_init_test_cases()\n{{\n{adds}}}\n"


def files(options):
    """(name in the archive, contents) of all that the guest needs."""
    for name in sorted(os.listdir(options.tests)):
        if name == "Atffile" or name.endswith((".sh", ".c")):
            yield name, contents(os.path.join(options.tests, name))
    if options.h_dm:
        yield "h_dm", contents(options.h_dm)
    if options.module:
        yield "dm.kmod", contents(options.module)
    chosen = selected(options.tests, options.select)
    for program, case_names in chosen.items():
        if case_names is not None:
            yield f"{program}.only", only(case_names).encode()
    yield "all", lines(programs(options.tests))
    yield "programs", lines(chosen)
    yield "run", SCRIPT.encode()


def lines(names):
    """A file with one name a line."""
    return "".join(f"{name}\n" for name in names).encode()


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


RUN = "sh dmtests/run"


def before(disk):
    """What root types before the tests. `disk` is the guest's name for the image."""
    return ["cd /var/tmp", "rm -rf dmtests", f"tar xf /dev/r{disk}"]


def after(disk):
    """What root types after the tests, whatever became of them, to hand over the results."""
    return [
        "tar cf results.tar -C dmtests results",
        f"dd if=results.tar of=/dev/r{disk} bs=1m seek={RESULTS} conv=sync",
    ]


def read_results(path):
    """The files that the guest handed over, by name; none if it handed over nothing."""
    with open(path, "rb") as image:
        image.seek(RESULTS * MEGABYTE)
        archive = io.BytesIO(image.read())
    found = {}
    try:
        with tarfile.open(fileobj=archive, mode="r:") as tar:
            for entry in tar:
                name = re.fullmatch(r"results/([\w.]+)", entry.name)
                if name and entry.isfile():
                    found[name.group(1)] = tar.extractfile(entry).read()
    except tarfile.TarError:
        pass
    return found
