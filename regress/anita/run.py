#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Runs the tests of regress/atf in a NetBSD guest under QEMU, unattended.

    regress/anita/run.py --kernel NETBSD RELEASE
    regress/anita/run.py --module dm.kmod RELEASE
    regress/anita/run.py --kernel NETBSD --image DISK --arch PORT

RELEASE is the directory or URL of a NetBSD release for one port, as anita(1)
takes it ("https://cdn.NetBSD.org/pub/NetBSD/NetBSD-10.1/amd64/"). The first run
installs it in the work directory; later runs start from that installation and
leave it as it was. DISK is a raw disk image with a NetBSD on it; it is never
written. README.md beside this file lists what it, and the host, must hold.

Ends with atf-report's summary, and with 0 if no test failed, 1 if one did or
none ran, 2 if something that it needs is not there, 3 if the guest fell. What
the guest handed over, and its console, are in the work directory's results/.
"""

import argparse
import os
import shutil
import sys

import console
import guest
import machine
import summary
from machine import Need

OK, FAILED, NEEDS, FELL = 0, 1, 2, 3
# How many seconds the console may be silent.
SILENCE = 900
# As a shell has it of a program that SIGINT ended.
INTERRUPTED = 130

# The meanings of the exit statuses of the guest's script.
REASONS = {
    guest.NO_COMPILER: (
        "the guest cannot compile h_dm.c (results/cc says why): install its set comp, or give\n"
        "--h-dm a program compiled elsewhere"
    ),
    guest.NO_SYMBOLS: (
        "the kernel has no symbols, which a module is linked against: QEMU loads a kernel\n"
        "without them. Configure it with `makeoptions COPY_SYMTAB=1'"
    ),
    guest.NO_ATF: "the guest lacks one of atf-run(1), atf-report(1) and atf-sh(1)",
    guest.SECURED: (
        "the guest's security level is above 0, where no module is loaded: configure the kernel\n"
        "with `options INSECURE', as GENERIC is"
    ),
    guest.NO_MODULE: "the guest does not load the module: results/modload and results/console",
}


def parser():
    """The command line."""
    p = argparse.ArgumentParser(
        prog="run.py",
        description="Runs the tests of dm(4) in a NetBSD guest, by way of anita.",
        epilog="Exit status: 0 no test failed, 1 one did or none ran, 2 something is missing, "
        "3 the guest fell.",
    )
    p.add_argument("release", nargs="?", help="directory or URL of a release for one port")
    p.add_argument("--image", metavar="DISK", help="a raw disk image in place of a release")
    p.add_argument("--arch", metavar="PORT", help="the image's port")
    p.add_argument("--kernel", help="a kernel with the driver built in, or made to load it")
    p.add_argument("--module", help="dm.kmod, for the release's own kernel or that of --kernel")
    p.add_argument("--root", metavar="DEVICE", help="where the root of --kernel is (wd0a; dk0)")
    p.add_argument("--h-dm", metavar="FILE", help="h_dm.c compiled, for a guest without cc(1)")
    p.add_argument("--tests", default=guest.TESTS, help="the folder of tests")
    p.add_argument(
        "--select", action="append", default=[], metavar="PROGRAM[:CASE]", help="run only these"
    )
    p.add_argument("--workdir", default="anita-work", help="where the guest is kept")
    p.add_argument("--memory", type=machine.size, default="512M", help="the guest's memory")
    p.add_argument(
        "--disk-size", type=machine.size, default="8G", help="the guest's disk, when installed"
    )
    p.add_argument("--cpus", type=positive, default=2, help="the guest's processors")
    p.add_argument(
        "--timeout", type=positive, metavar="SECONDS",
        help="how long the console may be silent, from QEMU's start on (900, or what a case may take)",
    )
    p.add_argument(
        "--vmm-arg", action="append", default=[], metavar="ARG",
        help="a further argument for QEMU, after all others",
    )
    return p


def positive(text):
    """A number above 0."""
    value = int(text)
    if value <= 0:
        raise ValueError(text)
    return value


def joined(arguments):
    """The arguments with "--vmm-arg", "-x" as one, since argparse takes "-x" for an option."""
    words, result = iter(arguments), []
    for word in words:
        value = next(words, None) if word == "--vmm-arg" else None
        result.append(word if value is None else f"--vmm-arg={value}")
    return result


def check(options):
    """Raises Need if anything that `options` name is missing."""
    machine.check_source(options)
    if not options.kernel and not options.module:
        raise Need("it needs --kernel or --module: `cargo xtask kmod --src TREE` makes a module")
    if options.root and not options.kernel:
        raise Need("--root goes with --kernel: the boot loader knows the release's own root")
    for path in (options.kernel, options.module, options.h_dm):
        if path:
            machine.check_file(path, machine.port(options))
    if not guest.programs(options.tests):
        raise Need(f"there are no tests in {options.tests}")
    try:
        guest.selected(options.tests, options.select)
    except (ValueError, OSError) as error:
        raise Need(str(error)) from error


def run(options, anita):
    """Boots the guest, runs the tests and fetches what they reported, into results/.

    Returns the report, if there is one. Raises Need and console.Fell.
    """
    import pexpect  # anita itself needs it.

    machine.claim(options)
    vm = machine.make(options, anita)
    machine.install(options, vm, pexpect)
    results = os.path.join(options.workdir, "results")
    shutil.rmtree(results, ignore_errors=True)
    os.makedirs(results)
    exchange = os.path.join(options.workdir, "exchange.img")
    guest.write_exchange(exchange, options)
    with open(os.path.join(results, "console"), "wb") as log:
        try:
            child = vm.start_boot(machine.boot_arguments(options, vm, exchange), install=False)
            child.logfile_read = console.Tee(child.logfile_read, log)
            watch = console.Console(
                child, options.timeout or SILENCE, pexpect,
                {} if options.timeout else guest.limits(options.tests),
            )
            try:
                status = session(vm.get_arch_prop("scratch_disk"), watch)
            finally:
                keep_cases(results, watch)
        finally:
            machine.end(vm)
    return handed_over(exchange, results, status)


def session(disk, watch):
    """What is done in the guest; returns the exit status of the tests' script.

    The guest is halted at the end, since a driver may fall there, too.
    """
    try:
        open_to_root = watch.login()
    except console.Died as died:
        if died.booted:
            raise
        raise Need(f"QEMU does not start: {died.last or 'it says nothing'}") from died
    if not open_to_root:
        raise Need("root has a password in this guest, and must log in without one")
    for command in guest.before(disk):
        typed(watch, command)
    status = watch.shell(guest.RUN)
    for command in guest.after(disk):
        typed(watch, command)
    watch.halt()
    return status


def typed(watch, command):
    """Types a command that must succeed."""
    status = watch.shell(command)
    if status != 0:
        raise console.Fell(f"the guest says {status} to: {command}")


def keep_cases(results, watch):
    """Writes down how the cases ended that the console told of."""
    with open(os.path.join(results, "cases"), "w", encoding="utf-8") as file:
        for case, result in watch.results.items():
            file.write(f"{case} {result}\n")
        if watch.case:
            file.write(f"{watch.case} did not end\n")


def handed_over(exchange, results, status):
    """Puts the guest's files into the folder `results`; returns the report."""
    found = guest.read_results(exchange)
    for name, data in found.items():
        if name not in ("console", "cases"):
            with open(os.path.join(results, name), "wb") as file:
                file.write(data)
    if status in REASONS:
        raise Need(REASONS[status])
    if status != 0:
        raise console.Fell(f"the guest says {status} to: {guest.RUN}")
    report = found.get("report")
    return None if report is None else report.decode("utf-8", "replace")


def verdict(report, out):
    """Prints the summary, and says by what to exit."""
    if report is None:
        print("run.py: the guest left no report", file=sys.stderr)
        return FELL
    counts = summary.parse(report)
    if counts is None:
        print("run.py: no summary in the guest's report:", file=sys.stderr)
        out.write(report)
        return FELL
    out.write(summary.text(report))
    return OK if counts.failed == 0 and counts.passed > 0 else FAILED


def tell(options, out):
    """Says where the results are, and in a few words what they are."""
    results = os.path.join(options.workdir, "results")
    try:
        with open(os.path.join(results, "cases"), encoding="utf-8") as file:
            ended = [line.split(" ", 1)[1].strip() for line in file]
    except OSError:
        return
    kinds = [f"{ended.count(kind)} {kind}" for kind in sorted(set(ended))]
    out.write(f"Cases that the console told of: {', '.join(kinds) or 'none'}.\n")
    out.write(f"In {results}: {', '.join(sorted(os.listdir(results)))}.\n")


def main(arguments, out=sys.stdout):
    """The program."""
    options = parser().parse_args(joined(arguments))
    try:
        check(options)
        status = verdict(run(options, machine.load_anita()), out)
    except Need as need:
        print(f"run.py: {need}", file=sys.stderr)
        return NEEDS
    except console.Fell as fell:
        print(f"run.py: the guest fell: {fell}", file=sys.stderr)
        status = FELL
    except KeyboardInterrupt:
        print("run.py: interrupted", file=sys.stderr)
        status = INTERRUPTED
    # Whatever else anita or pexpect raises.
    except Exception as error:
        print(f"run.py: the guest fell: {machine.first_line(error)}", file=sys.stderr)
        status = FELL
    tell(options, out)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
