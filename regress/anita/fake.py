# SPDX-License-Identifier: BSD-2-Clause
"""An anita, a QEMU and a NetBSD guest that are none, for the tests.

The guest boots, or does not, as its kernel and its disk would have it, and runs what is typed
at its console with the host's sh(1): the script of guest.py runs for real, with stand-ins for
the programs of NetBSD that it calls. They refuse what the real ones refuse.
"""

import collections
import os
import re
import signal
import subprocess
import sys
import types

SILENCE = object()

STANDINS = {
    # As atf-run(1): its arguments are programs, and it knows no cases.
    "atf-run": """\
dm_test_case() { :; }
for program; do
	[ -f "$program" ] || { echo "atf-run: ERROR: $program: no such file" >&2; exit 1; }
	echo "tp-start: 1.5, $program, 1"
	for case in $(atf_add_test_case() { echo $1; }; . ./$program; atf_init_test_cases); do
		echo "tc-start: 1.5, $case"
		echo "tc-so:a line, with commas, that the case prints: tc-end: 1.5, no, failed"
		result=passed
		[ ! -f $FAKE/fails ] || result='failed, Test case failed, with commas'
		echo "tc-end: 1.7, $case, $result"
	done
	echo "tp-end: 1.9, $program"
done
""",
    "atf-report": """\
exec >${2#ticker:}
input=$(cat)
count() { echo "$input" | grep -c "^tc-end: [^,]*, [^,]*, $1"; }
echo "Summary for 1 test programs:"
echo "    $(count passed) passed test cases."
echo "    $(count failed) failed test cases."
echo "    0 expected failed test cases."
echo "    $(count skipped) skipped test cases."
""",
    "cc": """\
[ ! -f $FAKE/no-cc ] || { echo "cc: not found"; exit 127; }
: >h_dm
""",
    "sysctl": "[ -f $FAKE/secured ] && echo 1 || echo -1\n",
    "modload": "[ ! -f $FAKE/bad-module ]\n",
    "atf-sh": "exit 1\n",
    "dmesg": "echo 'NetBSD 10.99 (FAKE)'\n",
    # NetBSD's dd has other letters than GNU's, and a device is not truncated.
    "dd": 'exec /bin/dd $(echo "$*" | sed "s/bs=1m/bs=1M/;s/conv=sync/conv=sync,notrunc/")\n',
}


class TIMEOUT(Exception):
    """As pexpect's."""


class EOF(Exception):
    """As pexpect's."""


PEXPECT = types.SimpleNamespace(TIMEOUT=TIMEOUT, EOF=EOF)


class Child:
    """The part of pexpect.spawn that is used, over a guest's console."""

    logfile_read = None
    # anita's, with which pexpect waits for half a minute.
    delayafterclose = delayafterterminate = 30.0

    def __init__(self, guest):
        self.guest, self.buffer = guest, ""
        self.ptyproc = types.SimpleNamespace(delayafterclose=30.0, delayafterterminate=30.0)
        self.before = self.match = None

    def expect(self, patterns, timeout):
        """The earliest match wins, and of several at one place the first pattern."""
        assert timeout > 0
        while True:
            found = [(m.start(), at, m) for at, p in enumerate(patterns)
                     if (m := re.search(p, self.buffer))]
            if found:
                _, at, self.match = min(found, key=lambda entry: entry[:2])
                self.before = self.buffer[:self.match.start()].encode()
                self.buffer = self.buffer[self.match.end():]
                return at
            data = self.guest.says()
            if data is SILENCE:
                raise TIMEOUT
            if data is None:
                self.before = self.buffer.encode()
                raise EOF
            self.buffer += data
            if self.logfile_read:
                self.logfile_read.write(data.encode())

    def close(self, force):
        """Ends QEMU."""
        assert force and self.delayafterclose < 1 and self.ptyproc.delayafterclose < 1
        self.guest.anita.ended += 1

    def send(self, text):
        """Types a line."""
        self.guest.typed(text.rstrip("\n"))


class Guest:
    """A guest that was booted with `arguments` for QEMU, in the folder `place`."""

    def __init__(self, anita, arguments, exchange, place):
        self.anita, self.arguments, self.exchange, self.place = anita, arguments, exchange, place
        self.said, self.over, self.echo = collections.deque(), False, True
        self.at, self.state = place, "off"
        self.boot()

    def boot(self):
        """Says what a kernel says, up to where it waits."""
        if self.anita.qemu_says:
            self.say(f"qemu-system-x86_64: {self.anita.qemu_says}\r\n")
            self.over = True
            return
        self.say("NetBSD 10.99 (FAKE)\r\ntotal memory = 511 MB\r\n")
        if self.anita.hangs_at == "boot":
            self.say(SILENCE)
        elif self.told("-kernel") and self.root() != self.anita.real_root():
            self.say(f"boot device: <unknown>\r\nroot on {self.root()}: not there\r\n"
                     "root device (default wd0a): ")
        else:
            self.state = "login"
            self.say("\r\nNetBSD/amd64 (fake) (console)\r\n\r\nlogin: ")

    def told(self, option):
        """The last value of one of QEMU's options."""
        places = [at for at, word in enumerate(self.arguments) if word == option]
        return self.arguments[places[-1] + 1] if places else None

    def root(self):
        """The root that the kernel is told to take."""
        return re.search(r"root=(\S+)", self.told("-append") or "root=?").group(1)

    def say(self, text):
        """Puts something on the console."""
        self.said.append(text)

    def says(self):
        """The next thing on the console."""
        if self.said:
            return self.said.popleft()
        return None if self.over else SILENCE

    def typed(self, line):
        """Takes a line from the console."""
        if self.over or self.said and self.said[-1] is SILENCE:
            return
        if self.echo:
            self.say(f"{line}\r\n")
        if self.state == "login":
            self.state = "shell"
            self.say("Password:" if self.anita.password else "Password-less login.\r\nfake# ")
        elif line == "halt":
            self.halt()
        elif line.startswith("exec "):
            self.say("# ")
        else:
            self.shell(line)

    def shell(self, line):
        """Runs a line."""
        if "stty -echo" in line:
            self.echo, line = False, line.replace("stty -echo", ":")
        line = line.replace("/dev/rwd1d", self.exchange).replace("/var/tmp", self.place)
        if line.startswith("cd "):
            self.at = line[3:line.index(";")]
        environment = dict(os.environ, FAKE=self.place)
        environment["PATH"] = f"{self.place}/bin:{environment['PATH']}"
        # Every process of the line holds `held`, so that `alive` ends when the last one is gone.
        alive, held = os.pipe()
        with open(alive, "rb") as alive, subprocess.Popen(
            ["sh", "-c", line], cwd=self.at, env=environment, text=True, pass_fds=[held],
            start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ) as running:
            os.close(held)
            try:
                for said in running.stdout:
                    self.say(said.replace("\n", "\r\n"))
                    case = re.match(r"dm-tests: start (\S+)", said)
                    if case and self.stops(case.group(1)):
                        return
                running.wait()
            finally:
                if running.returncode is None:
                    os.killpg(running.pid, signal.SIGKILL)
                alive.read()
        self.settle()
        self.say("# ")

    def halt(self):
        """Halts, or falls on the way."""
        self.anita.halted += 1
        if not self.stops("halt"):
            self.say("syncing disks... done\r\n")
            if self.anita.switches_off:
                self.over = True
            else:
                self.say("The operating system has halted.\r\n")

    def settle(self):
        """Gives the script that was unpacked this guest's own /dev/ksyms."""
        script = os.path.join(self.place, "dmtests/run")
        if os.path.exists(script):
            with open(script, encoding="ascii") as file:
                text = file.read()
            with open(script, "w", encoding="ascii") as file:
                file.write(text.replace("/dev/ksyms", f"{self.place}/ksyms"))

    def stops(self, case):
        """`true` if the guest panics or falls silent in this case."""
        if self.anita.hangs_at == case:
            self.say(SILENCE)
            return True
        if self.anita.panics_at != case:
            return False
        self.say("[ 12.3] panic: first reason\r\n[ 12.3] cpu0: Begin traceback...\r\n")
        self.say("[ 12.3] panic: kernel diagnostic assertion\r\n")
        if self.anita.has_ddb:
            self.say("Stopped in pid 1.1\r\ndb{0}> ")
        elif "-no-reboot" in self.arguments:
            self.say("rebooting...\r\n")
            self.over = True
        else:
            self.boot()
        return True


class Anita(types.ModuleType):
    """What run.py uses of anita."""

    def __init__(self, place, **ways):
        super().__init__("anita")
        self.place = place
        self.qemu = sys.executable
        self.panics_at = self.hangs_at = self.qemu_says = self.install_fails = None
        self.has_ddb = self.password = self.switches_off = False
        self.__dict__.update(ways)
        self.booted, self.ended, self.halted, self.made = None, 0, 0, None
        self.child = None
        self.Anita = self.make
        os.makedirs(os.path.join(place, "bin"), exist_ok=True)
        for name, text in STANDINS.items():
            path = os.path.join(place, "bin", name)
            with open(path, "w", encoding="ascii") as file:
                file.write(f"#!/bin/sh\n{text}")
            os.chmod(path, 0o755)
        self.touch("ksyms")

    def touch(self, name):
        """Makes a file that a stand-in looks for."""
        with open(os.path.join(self.place, name), "wb"):
            pass

    def distribution(self, name):
        """A release; its port is its folder's name."""
        port = name.rstrip("/").rsplit("/", 1)[1]
        if port not in ("amd64", "i386"):
            raise RuntimeError(f"'{port}' is not the name of a supported NetBSD port")
        return name

    def make(self, dist, **options):
        """anita.Anita."""
        self.made = (dist, options)
        return self

    def wd0_path(self):
        """Where the guest's disk is."""
        return os.path.join(self.made[1]["workdir"], "wd0.img")

    def image_is_gpt(self):
        """As anita's."""
        with open(self.wd0_path(), "rb") as file:
            return file.read()[512:520] == b"EFI PART"

    def real_root(self):
        """Where the root file system of the guest's disk is."""
        return "dk0" if self.image_is_gpt() else "wd0a"

    def install(self):
        """Installs as sysinst does: with GPT, if MBR is not asked for."""
        if self.install_fails:
            raise self.install_fails
        gpt = self.made[1].get("partitioning_scheme") != "MBR"
        with open(self.wd0_path(), "wb") as file:
            file.write(b"\0" * 512 + (b"EFI PART" if gpt else b"\0" * 8))

    def get_arch_prop(self, key):
        """The port's properties."""
        return {"scratch_disk": "wd1d"}[key]

    def qemu_disk_args(self, path, *_):
        """QEMU's options for a disk."""
        self.exchange = os.path.abspath(path)
        return ["-drive", f"file={path}"]

    def start_boot(self, arguments, install):
        """Starts QEMU."""
        assert not install and os.path.exists(self.wd0_path())
        self.booted = arguments
        self.child = Child(Guest(self, arguments, self.exchange, self.place))
        return self.child

    def cleanup(self):
        """Forgets QEMU, which it does not end."""
        self.child = None
