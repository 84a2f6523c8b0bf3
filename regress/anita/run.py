#!/usr/bin/env python3
"""Runs the tests of regress/atf in a NetBSD guest under QEMU, unattended.

    regress/anita/run.py --kernel NETBSD RELEASE
    regress/anita/run.py --module dm.kmod RELEASE

RELEASE is the directory or URL of a NetBSD release for one port, as anita(1)
takes it ("https://cdn.NetBSD.org/pub/NetBSD/NetBSD-10.1/amd64/"). The first run
installs it in the work directory; later runs start from that installation and
leave it as it was.

Ends with atf-report's summary, and with 0 if no test failed, 1 if one did or
none ran, 2 if something that it needs is not there, 3 if the guest fell.
"""

import argparse
import os
import shutil
import sys

import guest
import summary

OK, FAILED, NEEDS, FELL = 0, 1, 2, 3

WHERE = """\
anita is NetBSD's Automated NetBSD Installation and Test Application: misc/py-anita
in pkgsrc, else
    pip install pexpect git+https://github.com/gson1703/anita
(the package that is called anita on PyPI is another program.)"""


class Need(Exception):
    """Something that has to be there is not."""


def parser():
    """The command line."""
    p = argparse.ArgumentParser(
        prog="run.py",
        description="Runs the tests of dm(4) in a NetBSD guest, by way of anita.",
    )
    p.add_argument("release", nargs="?", help="directory or URL of a release for one port")
    p.add_argument("--kernel", help="a kernel with the driver built in, or made to load it")
    p.add_argument("--module", help="dm.kmod, for the release's own kernel or that of --kernel")
    p.add_argument("--tests", default=guest.TESTS, help="the folder of tests")
    p.add_argument(
        "--select", action="append", default=[], metavar="PROGRAM[:CASE]", help="run only these"
    )
    p.add_argument("--workdir", default="anita-work", help="where the guest is kept")
    p.add_argument("--memory", default="512M", help="the guest's memory")
    p.add_argument("--disk-size", default="8G", help="the guest's disk, when it is installed")
    p.add_argument("--cpus", type=positive, default=2, help="the guest's processors")
    p.add_argument("--timeout", type=positive, default=3600, help="seconds without a word")
    p.add_argument("--vmm-arg", action="append", default=[], help="a further argument for QEMU")
    return p


def positive(text):
    """A number above 0."""
    value = int(text)
    if value <= 0:
        raise ValueError(text)
    return value


def check(options):
    """Raises Need if anything that `options` name is missing."""
    if not options.release:
        raise Need(
            "it needs a NetBSD release for one port, as a directory or a URL, for example\n"
            "    https://cdn.NetBSD.org/pub/NetBSD/NetBSD-10.1/amd64/"
        )
    if not options.kernel and not options.module:
        raise Need("it needs --kernel or --module: `cargo xtask kmod --src TREE` makes a module")
    for path in (options.kernel, options.module):
        if path and not os.path.isfile(path):
            raise Need(f"there is no file {path}")
    if "://" not in options.release and not os.path.isdir(options.release):
        raise Need(f"there is no release {options.release}")
    if not guest.programs(options.tests):
        raise Need(f"there are no tests in {options.tests}")
    try:
        guest.selected(options.tests, options.select)
    except ValueError as error:
        raise Need(str(error)) from error


def release(name):
    """A release as anita wants it: absolute, and with a slash at the end."""
    if "://" not in name:
        name = os.path.abspath(name)
    return name.rstrip("/") + "/"


def load_anita():
    """Imports anita."""
    try:
        import anita
    except ImportError as error:
        raise Need(f"it needs anita ({error}).\n{WHERE}") from error
    if not hasattr(anita, "Anita") or not hasattr(anita, "distribution"):
        raise Need(f"the module anita is not the one that is meant.\n{WHERE}")
    return anita


def boot_arguments(options, disk_arguments):
    """What QEMU is told beyond what anita tells it."""
    arguments = list(disk_arguments) + ["-smp", str(options.cpus)] + list(options.vmm_arg)
    if options.kernel:
        # The release's own boot loader would load the release's own kernel.
        arguments += ["-kernel", os.path.abspath(options.kernel)]
        arguments += ["-append", "root=wd0a console=com"]
    return arguments


def run(options, anita):
    """Boots the guest, runs the tests and fetches what they reported."""
    os.makedirs(options.workdir, exist_ok=True)
    exchange = os.path.join(options.workdir, "exchange.img")
    machine = anita.Anita(
        anita.distribution(release(options.release)),
        workdir=options.workdir,
        disk_size=options.disk_size,
        memory_size=options.memory,
    )
    disk = machine.get_arch_prop("scratch_disk")
    if not machine.qemu or not disk:
        raise Need("of this port, anita knows no QEMU machine with a second disk")
    if not shutil.which(machine.qemu):
        raise Need(f"it needs {machine.qemu}")
    guest.write_exchange(exchange, options)
    try:
        machine.boot(boot_arguments(options, machine.qemu_disk_args(exchange, 1, True, False)))
        machine.login()
        # A line of atf-report's for each program is a sign of life.
        for command in guest.commands(disk):
            status = machine.shell_cmd(command, options.timeout, [r"test cases", r"\[\d+\.\d+s\]"])
            if status != 0:
                print(f"run.py: the guest says {status} to: {command}", file=sys.stderr)
                return None
        machine.halt()
    finally:
        machine.cleanup()
    return guest.read_results(exchange)


def verdict(results, out):
    """Prints the summary, and says by what to exit."""
    if results is None:
        print("run.py: the guest left no results", file=sys.stderr)
        return FELL
    counts = summary.parse(results)
    if counts is None:
        print("run.py: no summary in the guest's results:", file=sys.stderr)
        out.write(results)
        return FELL
    out.write(summary.text(results))
    return OK if counts.failed == 0 and counts.passed > 0 else FAILED


def main(arguments, out=sys.stdout):
    """The program."""
    options = parser().parse_args(arguments)
    try:
        check(options)
        results = run(options, load_anita())
    except Need as need:
        print(f"run.py: {need}", file=sys.stderr)
        return NEEDS
    except KeyboardInterrupt:
        raise
    # pexpect's TIMEOUT and EOF, and whatever else anita raises: the guest fell, or never stood.
    except Exception as error:
        first = (str(error).splitlines() or [""])[0]
        print(f"run.py: the guest fell: {type(error).__name__}: {first}", file=sys.stderr)
        return FELL
    return verdict(results, out)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
