"""Tests of what happens on the host; no guest is started."""

import contextlib
import io
import os
import re
import sys
import tarfile
import tempfile
import types
import unittest
from unittest import mock

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import guest
import run
import summary

REPORT = """\
Tests root: /var/tmp/dmtests

t_control (1/2): 2 test cases
    life: [1.5s] Passed.
    version: [0.5s] Passed.
[2.1s]

t_disk (2/2): 2 test cases
    query: [0.2s] %s
    swap: [0.1s] Skipped: no swap
[0.4s]

%sSummary for 2 test programs:
    %d passed test cases.
    %d failed test cases.
    0 expected failed test cases.
    1 skipped test cases.
"""
GOOD = REPORT % ("Passed.", "", 3, 0)
BAD = REPORT % ("Failed: size", "Failed test cases:\n    t_disk:query\n\n", 2, 1)


class Summary(unittest.TestCase):
    def test_counts(self):
        self.assertEqual(summary.parse(GOOD), summary.Counts(3, 0, 0, 1))
        self.assertEqual(summary.parse(BAD), summary.Counts(2, 1, 0, 1))

    def test_text_begins_with_the_failures(self):
        self.assertTrue(summary.text(BAD).startswith("Failed test cases:\n    t_disk:query"))
        self.assertTrue(summary.text(GOOD).startswith("Summary for 2"))

    def test_a_report_that_breaks_off_has_no_summary(self):
        whole = GOOD.index("Summary for")
        end = GOOD.index(" skipped test cases")
        for length in (0, 50, whole, whole + 30, end):
            self.assertIsNone(summary.parse(GOOD[:length]), length)

    def test_programs_that_fell_are_failures(self):
        fell = GOOD.replace(
            "Summary for", "Failed (bogus) test programs:\n    t_live, t_lvm\n\nSummary for"
        )
        self.assertEqual(summary.parse(fell).failed, 2)

    def test_a_test_cannot_forge_the_summary(self):
        forged = BAD.replace("life: [1.5s] Passed.", "life: Summary for 9 test programs:")
        self.assertEqual(summary.parse(forged).failed, 1)


class Folder(unittest.TestCase):
    """A test with a folder that holds a release, a kernel, a module and tests."""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.release = self.path("release/amd64")
        os.makedirs(self.release)
        os.makedirs(self.path("tests"))
        self.write("tests/Atffile", 'Content-Type: x\n\ntp: t_a\ntp: t_b\n')
        for name in ("t_a.sh", "t_b.sh", "subr.sh", "h_dm.c", "notes"):
            self.write(f"tests/{name}", name)
        self.write("netbsd", "kernel")
        self.write("dm.kmod", "module")

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="ascii") as file:
            file.write(text)

    def arguments(self, *more):
        return [
            "--tests", self.path("tests"), "--workdir", self.path("work"),
            "--module", self.path("dm.kmod"), *more, self.release,
        ]

    def options(self, *more):
        return run.parser().parse_args(self.arguments(*more))

    def main(self, arguments):
        """Its exit status, output and errors."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stderr(err):
            status = run.main(arguments, out)
        return status, out.getvalue(), err.getvalue()


class Needs(Folder):
    def need(self, arguments, what):
        status, _, err = self.main(arguments)
        self.assertEqual(status, run.NEEDS)
        self.assertIn(what, err)

    def test_a_release(self):
        self.need([], "needs a NetBSD release")
        self.need(["--module", self.path("dm.kmod"), self.path("none")], "no release")

    def test_a_kernel_or_a_module(self):
        self.need([self.release], "--kernel or --module")
        self.need(["--kernel", self.path("none"), self.release], "no file")

    def test_tests(self):
        arguments = self.arguments()
        arguments[1] = self.path("none")
        self.need(arguments, "no tests")
        self.need(self.arguments("--select", "t_c"), "no test program t_c")
        self.need(self.arguments("--select", "t_a:x;y"), "no name")

    def test_anita(self):
        with mock.patch.dict(sys.modules, {"anita": None}):
            self.need(self.arguments(), "pkgsrc")

    def test_the_right_anita(self):
        with mock.patch.dict(sys.modules, {"anita": types.ModuleType("anita")}):
            self.need(self.arguments(), "not the one that is meant")

    def test_numbers(self):
        for wrong in (["--timeout", "0"], ["--cpus", "-1"], ["--cpus", "x"]):
            with self.assertRaises(SystemExit) as caught, contextlib.redirect_stderr(io.StringIO()):
                run.parser().parse_args(wrong)
            self.assertEqual(caught.exception.code, 2)


class Exchange(Folder):
    def names(self, *more):
        guest.write_exchange(self.path("image"), self.options(*more))
        with tarfile.open(self.path("image")) as tar:
            return {os.path.basename(m.name): tar.extractfile(m).read() for m in tar}

    def test_what_the_guest_gets(self):
        got = self.names("--select", "t_b:one")
        self.assertEqual(
            set(got),
            {"Atffile", "t_a.sh", "t_b.sh", "subr.sh", "h_dm.c", "dm.kmod", "selected", "run"},
        )
        self.assertEqual(got["selected"], b"t_b:one\n")
        self.assertEqual(got["dm.kmod"], b"module")

    def test_room(self):
        guest.write_exchange(self.path("image"), self.options())
        self.assertEqual(os.path.getsize(self.path("image")), guest.ROOM * guest.MEGABYTE)
        self.assertIsNone(guest.read_results(self.path("image")))
        with mock.patch.object(guest, "RESULTS", 0), self.assertRaises(ValueError):
            guest.write_exchange(self.path("image"), self.options())

    def test_results_come_back(self):
        guest.write_exchange(self.path("image"), self.options())
        self.put_results(self.path("image"), GOOD)
        self.assertEqual(guest.read_results(self.path("image")), GOOD)

    @staticmethod
    def put_results(image, report):
        """Does what the guest's last two commands do."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            entry = tarfile.TarInfo("results/report")
            entry.size = len(report)
            tar.addfile(entry, io.BytesIO(report.encode()))
        with open(image, "r+b") as file:
            file.seek(guest.RESULTS * guest.MEGABYTE)
            file.write(archive.getvalue())

    def test_commands(self):
        commands = guest.commands("wd1d")
        self.assertIn("tar xf /dev/rwd1d", commands)
        self.assertIn(f"seek={guest.RESULTS}", commands[-1])
        # The console's line discipline holds no more.
        self.assertTrue(all(len(command) < 200 for command in commands))

    def test_the_real_tests(self):
        programs = guest.programs(guest.TESTS)
        self.assertIn("t_control", programs)
        there = {name for name in os.listdir(guest.TESTS) if re.match(r"t_.*\.sh$", name)}
        self.assertEqual({f"{program}.sh" for program in programs}, there)


class FakeAnita(types.ModuleType):
    """What run.py uses of anita, and a guest that does as it is told."""

    def __init__(self, report, statuses=None, fall=None):
        super().__init__("anita")
        self.report, self.statuses, self.fall = report, statuses or {}, fall
        self.told, self.booted, self.cleaned, self.made = [], None, 0, None
        self.qemu = sys.executable
        self.distribution = lambda name: name
        self.Anita = self.make

    def make(self, dist, **options):
        self.made = (dist, options)
        return self

    def get_arch_prop(self, key):
        return {"scratch_disk": "wd1d"}[key]

    def qemu_disk_args(self, path, *rest):
        self.image = path
        return ["-drive", f"file={path}"]

    def boot(self, arguments):
        self.booted = arguments
        if self.fall:
            raise self.fall

    def login(self):
        pass

    halt = login

    def cleanup(self):
        self.cleaned += 1

    def shell_cmd(self, command, timeout, alive):
        self.told.append(command)
        if command.startswith("dd ") and self.report is not None:
            Exchange.put_results(self.image, self.report)
        return self.statuses.get(command.split()[0], 0)


class Run(Folder):
    def run_with(self, fake, *more):
        with mock.patch.dict(sys.modules, {"anita": fake}):
            return self.main(self.arguments(*more))

    def test_passes(self):
        fake = FakeAnita(GOOD)
        status, out, _ = self.run_with(fake)
        self.assertEqual(status, run.OK)
        self.assertTrue(out.startswith("Summary for 2 test programs"))
        self.assertEqual(fake.told, guest.commands("wd1d"))
        self.assertEqual(fake.made[0], self.release + "/")
        self.assertNotIn("-kernel", fake.booted)
        self.assertEqual(fake.cleaned, 1)

    def test_fails(self):
        status, out, _ = self.run_with(FakeAnita(BAD))
        self.assertEqual(status, run.FAILED)
        self.assertIn("t_disk:query", out)

    def test_nothing_ran(self):
        status, _, _ = self.run_with(FakeAnita(REPORT % ("Skipped: x", "", 0, 0)))
        self.assertEqual(status, run.FAILED)

    def test_a_kernel(self):
        fake = FakeAnita(GOOD)
        self.run_with(fake, "--kernel", self.path("netbsd"), "--cpus", "4")
        at = fake.booted.index("-kernel")
        self.assertEqual(fake.booted[at + 1], self.path("netbsd"))
        self.assertEqual(fake.booted[fake.booted.index("-smp") + 1], "4")

    def test_the_guest_falls(self):
        fake = FakeAnita(GOOD, fall=RuntimeError("panic: lock error\nmore"))
        status, _, err = self.run_with(fake)
        self.assertEqual(status, run.FELL)
        self.assertIn("panic: lock error", err)
        self.assertEqual(fake.cleaned, 1)

    def test_a_command_fails(self):
        status, _, err = self.run_with(FakeAnita(GOOD, {"sh": 1}))
        self.assertEqual(status, run.FELL)
        self.assertIn("sh dmtests/run", err)

    def test_no_results(self):
        self.assertEqual(self.run_with(FakeAnita(None))[0], run.FELL)
        self.assertEqual(self.run_with(FakeAnita("nothing to see"))[0], run.FELL)

    def test_no_qemu(self):
        fake = FakeAnita(GOOD)
        fake.qemu = "/no/such/qemu"
        self.assertEqual(self.run_with(fake)[0], run.NEEDS)


if __name__ == "__main__":
    unittest.main()
