# SPDX-License-Identifier: BSD-2-Clause
"""The guest's console: commands typed at it, and an eye on what the guest says meanwhile.

It works on what pexpect.spawn is, or anything with its `expect', `send', `before' and
`match'; `expect' raises the exceptions named by TIMEOUT and EOF.
"""

import re

import guest

PANIC = re.compile(r"\bpanic: *(.*)")
# ddb(4)'s prompt, and the kernel's question when it finds no root.
DDB = r"db(\{\d+\})?> "
ASKS_ROOT = r"root device( \(default [^)]*\))?: "
# What kernels say when they have halted.
HALTED = r"operating system has halted|entering state S5"
CASE = re.compile(re.escape(guest.WORD) + r" (start|end) (\S+)(?: (\S+))?")

# Seconds that a kernel which panicked gets to say more.
LAST_WORDS = 20


class Fell(Exception):
    """The guest fell, or does not answer. Its text says how."""


class Died(Fell):
    """QEMU ended. `last` is the last line it or the guest wrote, `booted` whether there was a
    sign of a kernel before."""

    def __init__(self, text, last, booted):
        super().__init__(text)
        self.last, self.booted = last, booted


class Console:
    """A guest's console.

    `timeout` is how many seconds the console may be silent, at any time from the start of
    QEMU on. `limits` has cases that say nothing for longer, with how long.
    """

    def __init__(self, child, timeout, pexpect, limits):
        self.child, self.timeout, self.limits = child, timeout, limits
        self.eof, self.silence = pexpect.EOF, pexpect.TIMEOUT
        self.results = {}  # Of the cases that ended, by "PROGRAM:CASE", in their order.
        self.case = None  # The case that runs.
        self.panicked = None  # The last thing that a kernel said on its panic.
        self.last = ""  # The last line.
        self.booted = False
        self.asked = 0

    def wait(self, *patterns):
        """Waits for one of `patterns`, each within a line, and returns which it was.

        Raises Fell when the kernel panics or is in its debugger, when it asks for its root,
        when QEMU ends, and when the console is silent for too long.
        """
        watched = [*patterns, DDB, ASKS_ROOT, r"\n"]
        while True:
            try:
                at = self.child.expect(watched, self.patience())
            except self.silence:
                raise Fell(self.silent()) from None
            except self.eof:
                self.line(text(self.child.before))
                raise self.died() from None
            if self.panicked and at < len(patterns):
                # The text that was waited for is not to be trusted any more.
                continue
            if at < len(patterns):
                return at
            if at == len(watched) - 1:
                self.line(text(self.child.before))
            elif at == len(patterns):
                raise Fell(self.fell("the kernel is in its debugger"))
            else:
                raise Fell("the kernel does not find its root file system: --root DEVICE names it")

    def patience(self):
        """How many seconds the console may be silent now."""
        if self.panicked:
            return LAST_WORDS
        return max(self.timeout, self.limits.get(self.case, 0))

    def line(self, line):
        """Takes notice of a line."""
        line = line.strip("\r\n")
        if line.strip():
            self.last = line.strip()
        self.booted = self.booted or "NetBSD" in line
        panic = PANIC.search(line)
        if panic:
            self.panicked = panic.group(1).strip() or "(no reason given)"
        case = CASE.search(line)
        if case and case.group(1) == "start":
            self.case = case.group(2)
        elif case:
            self.results[case.group(2)] = (case.group(3) or "").rstrip(",")
            self.case = None

    def fell(self, what):
        """`what` with the panic's text before it, if there was one, and the case that ran."""
        if self.panicked:
            what = f"the kernel panicked: {self.panicked}"
        return f"{what}{self.meanwhile()}"

    def meanwhile(self):
        """Which case ran, in words."""
        if self.case:
            return f" (in {self.case})"
        done = list(self.results)
        return f" (after {done[-1]})" if done else ""

    def silent(self):
        """What to say of a console that was silent."""
        if self.panicked:
            return self.fell("")
        return self.fell(f"nothing came on the console for {self.patience()} seconds")

    def died(self):
        """What to say when QEMU has ended."""
        what = "the guest rebooted, or QEMU ended" if self.booted else "QEMU ended"
        return Died(self.fell(what), self.last, self.booted)

    def login(self):
        """Waits for the guest's login prompt and logs in as root; ends in sh(1).

        Returns `false` if root has a password.
        """
        self.wait(r"login: ?")
        self.child.send("root\n")
        # root's shell may be csh(1).
        if self.wait(r"[#%] ", r"assword:") == 1:
            return False
        self.child.send("exec /bin/sh\n")
        self.shell("stty -echo")
        return True

    def halt(self):
        """Halts the guest; raises Fell if it falls on the way."""
        self.child.send("halt\n")
        try:
            self.wait(HALTED)
        except Died:
            # A machine that is switched off by halt(8), without a word of ours.
            if self.panicked:
                raise

    def shell(self, command):
        """Types a command; returns its exit status."""
        # The console echoes the command; with the quotes that does not match the text that
        # is waited for.
        self.asked += 1
        self.child.send(f'{command}; echo "status"-{self.asked}-"$?"-\n')
        self.wait(rf"status-{self.asked}-(\d+)-")
        return int(self.child.match.group(1))


def text(data):
    """What a child wrote as a string; pexpect gives bytes where it has no encoding."""
    if isinstance(data, bytes):
        return data.decode("utf-8", "replace")
    return data if isinstance(data, str) else ""


class Tee:
    """A log file that also writes to the one it takes the place of."""

    def __init__(self, first, second):
        self.first, self.second = first, second

    def write(self, data):
        """Writes to both."""
        if self.first:
            self.first.write(data)
        self.second.write(data if isinstance(data, bytes) else data.encode())
        self.second.flush()

    def flush(self):
        """Flushes both."""
        if self.first:
            self.first.flush()
        self.second.flush()
