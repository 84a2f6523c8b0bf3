# SPDX-License-Identifier: BSD-2-Clause
"""The guest's machine: what anita makes of a release or an image, and its work directory."""

import os
import re
import shutil
import sys

WHERE = """\
anita is NetBSD's Automated NetBSD Installation and Test Application: misc/py-anita
in pkgsrc, else
    pip install pexpect git+https://github.com/gson1703/anita
(the package that is called anita on PyPI is another program.)"""

# The machine in the header of an ELF file, by port.
MACHINES = {"i386": 3, "amd64": 62, "evbarm-aarch64": 183}

# In the work directory: what its disk holds.
HOLDS = "holds"


class Need(Exception):
    """Something that has to be there is not. Its text says what."""


def load_anita():
    """Imports anita."""
    try:
        import anita
    except ImportError as error:
        raise Need(f"it needs anita ({error}).\n{WHERE}") from error
    if not hasattr(anita, "Anita") or not hasattr(anita, "distribution"):
        raise Need(f"the module anita is not the one that is meant.\n{WHERE}")
    return anita


def check_source(options):
    """Raises Need unless `options` name a release or an image that can be there."""
    if options.release and options.image:
        raise Need("it takes a release or --image, not both")
    if options.image:
        if not options.arch:
            raise Need("--image needs --arch, the name of the image's port: amd64, i386, ...")
        if not os.path.isfile(options.image):
            raise Need(f"there is no file {options.image}")
        with open(options.image, "rb") as file:
            if file.read(4) == b"QFI\xfb":
                raise Need(
                    f"{options.image} is in the format qcow2, and has to be raw:\n"
                    "    qemu-img convert -O raw IMAGE RAW"
                )
        return
    if options.arch:
        raise Need("--arch goes with --image: a release's port is the name of its folder")
    if not options.release:
        raise Need(
            "it needs --image, or a NetBSD release for one port, as a directory or a URL:\n"
            "    https://cdn.NetBSD.org/pub/NetBSD/NetBSD-10.1/amd64/"
        )
    if "://" not in options.release and not os.path.isdir(options.release):
        raise Need(f"there is no release {options.release}")


def release(name):
    """A release as anita wants it: absolute, and with a slash at the end."""
    if "://" not in name:
        name = os.path.abspath(name)
    return name.rstrip("/") + "/"


def port(options):
    """The name of the guest's port."""
    return options.arch or release(options.release).rstrip("/").rsplit("/", 1)[1]


def check_file(path, port_name):
    """Raises Need unless `path` is a file, and not one for another port's processor."""
    if not os.path.isfile(path):
        raise Need(f"there is no file {path}")
    with open(path, "rb") as file:
        header = file.read(20)
    wanted = MACHINES.get(port_name)
    if header.startswith(b"\x7fELF") and wanted:
        found = int.from_bytes(header[18:20], "little")
        if found != wanted:
            names = {number: name for name, number in MACHINES.items()}
            raise Need(f"{path} is for {names.get(found, 'another port')}, not for {port_name}")


def source(options):
    """What the guest's disk is made from, as one line."""
    if options.image:
        return f"image {os.path.realpath(options.image)} for {options.arch}"
    return f"release {release(options.release)}"


def claim(options):
    """Makes the work directory, or sees that it is of the same release or image.

    Raises Need if it is another's, since anita boots whatever disk it finds there.
    """
    if "," in os.path.abspath(options.workdir):
        raise Need(f"QEMU takes no comma in the name of a disk: {os.path.abspath(options.workdir)}")
    os.makedirs(options.workdir, exist_ok=True)
    path = os.path.join(options.workdir, HOLDS)
    disk = os.path.join(options.workdir, "wd0.img")
    wanted = source(options)
    try:
        with open(path, encoding="utf-8") as file:
            found = file.read().strip()
    except FileNotFoundError:
        found = None
    if found is None and os.path.lexists(disk):
        raise Need(f"{disk} is of an unknown release: name another --workdir, or remove it")
    if found not in (None, wanted):
        raise Need(
            f"{options.workdir} holds a guest of another origin:\n    {found}\n"
            "name another --workdir, or remove that one"
        )
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"{wanted}\n")
    if options.image and not os.path.lexists(disk):
        # The disk is attached with snapshot=on: QEMU opens it for reading only.
        os.symlink(os.path.realpath(options.image), disk)


def make(options, anita):
    """The machine, not started yet. Raises Need for what anita refuses."""
    if options.image:
        # anita takes the port from the name of the folder that a release is in.
        folder = os.path.join(options.workdir, "release", options.arch)
        os.makedirs(folder, exist_ok=True)
    else:
        folder = options.release
    try:
        machine = anita.Anita(
            anita.distribution(release(folder)),
            workdir=options.workdir,
            disk_size=options.disk_size,
            memory_size=options.memory,
            # NetBSD 10's sysinst offers GPT first. With it the root's name depends on what
            # other partitions there are.
            partitioning_scheme="MBR",
            no_install=bool(options.image),
        )
    except (RuntimeError, KeyError) as error:
        raise Need(f"anita: {error}") from error
    except TypeError as error:
        raise Need(f"this anita is too old ({error}): 2.18 is known to do") from error
    if not machine.qemu or not machine.get_arch_prop("scratch_disk"):
        raise Need("of this port, anita knows no QEMU machine with a second disk")
    if not shutil.which(machine.qemu):
        raise Need(f"it needs {machine.qemu}")
    return machine


def end(machine):
    """Ends QEMU, if it still runs.

    anita leaves that to the exit of the program, and lets pexpect wait half a minute.
    """
    child = machine.child
    if child is not None:
        for part in (child, child.ptyproc):
            part.delayafterclose = part.delayafterterminate = 0.2
        child.close(force=True)
        # The guest seldom stops at a line's end.
        print()
    machine.cleanup()


def installed(machine):
    """`true` if the machine has a disk."""
    return os.path.exists(machine.wd0_path())


def check_install(options):
    """Raises Need if what an installation takes is missing."""
    if "://" not in options.release:
        sets = os.path.join(options.release, "binary", "sets")
        if not os.path.isdir(sets):
            raise Need(f"the release has no sets: there is no {sets}")
    if sys.platform.startswith("netbsd"):
        return
    if not any(shutil.which(tool) for tool in ("genisoimage", "mkisofs")):
        raise Need("to install a release it needs genisoimage or mkisofs")


def install(options, machine, pexpect):
    """Installs the release, if that has not been done.

    Raises Need if that does not succeed.
    """
    if options.image or installed(machine):
        return
    check_install(options)
    try:
        machine.install()
    except (pexpect.TIMEOUT, pexpect.EOF) as error:
        raise Need(f"the installation came to a halt: {first_line(error)}") from error
    # Sets that cannot be fetched, a program that is missing or fails.
    except (RuntimeError, OSError) as error:
        raise Need(f"the installation failed: {first_line(error)}") from error


def first_line(error):
    """What an exception says, shortened."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def root(options, machine):
    """The device that a kernel of the user's own is told to have its root on."""
    return options.root or ("dk0" if machine.image_is_gpt() else "wd0a")


def boot_arguments(options, machine, exchange):
    """What QEMU is told beyond what anita tells it."""
    arguments = list(machine.qemu_disk_args(exchange, 1, True, False))
    # A kernel that panics reboots, and would do so for ever.
    arguments += ["-no-reboot", "-smp", str(options.cpus)]
    if options.kernel:
        # The release's own boot loader would load the release's own kernel.
        arguments += ["-kernel", os.path.abspath(options.kernel)]
        arguments += ["-append", f"root={root(options, machine)} console=com"]
    # The user has the last word.
    return arguments + list(options.vmm_arg)


def size(text):
    """A size as QEMU and anita take it."""
    if not re.fullmatch(r"[1-9]\d*[kMGT]?", text):
        raise ValueError(text)
    return text
