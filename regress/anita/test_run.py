# SPDX-License-Identifier: BSD-2-Clause
"""Tests of what happens on the host, with the guest of fake.py in place of a real one."""

import contextlib
import errno
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

import fake
import guest
import run

PROGRAM = """\
dm_test_case one
dm_test_case two
atf_init_test_cases()
{
	atf_add_test_case one
	atf_add_test_case two
}
"""


class Folder(unittest.TestCase):
    """A test with a folder that holds a release, an image, a kernel, a module and tests."""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.release = self.path("release/amd64")
        os.makedirs(os.path.join(self.release, "binary/sets"))
        os.makedirs(self.path("tests"))
        self.write("tests/Atffile", "Content-Type: x\n\ntp: t_a\ntp: t_b\n")
        for name in ("t_a.sh", "t_b.sh"):
            self.write(f"tests/{name}", PROGRAM)
        for name in ("subr.sh", "h_dm.c", "notes"):
            self.write(f"tests/{name}", name)
        self.write("netbsd", "kernel")
        self.write("dm.kmod", "module")
        self.write("image", "\0" * 600)

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="ascii") as file:
            file.write(text)

    def read(self, name):
        with open(self.path(name), encoding="utf-8") as file:
            return file.read()

    def common(self, *more):
        return ["--tests", self.path("tests"), "--workdir", self.path("work"), *more]

    def arguments(self, *more):
        return self.common("--module", self.path("dm.kmod"), *more, self.release)

    def kernel(self, *more):
        return self.common("--kernel", self.path("netbsd"), *more, self.release)

    def options(self, *more):
        return run.parser().parse_args(self.arguments(*more))

    def main(self, arguments, anita=None):
        """Its exit status, output and errors."""
        out, err = io.StringIO(), io.StringIO()
        modules = {"anita": anita, "pexpect": fake.PEXPECT}
        there = mock.patch("shutil.which", lambda name: f"/bin/{name}")
        with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()), there, \
                mock.patch.dict(sys.modules, modules):
            status = run.main(arguments, out)
        return status, out.getvalue(), err.getvalue()

    def anita(self, **ways):
        os.makedirs(self.path("guest"), exist_ok=True)
        return fake.Anita(self.path("guest"), **ways)


class Needs(Folder):
    def need(self, arguments, what, anita=None):
        status, _, err = self.main(arguments, anita)
        self.assertEqual(status, run.NEEDS, err)
        self.assertIn(what, err)

    def test_a_release(self):
        self.need([], "needs --image, or a NetBSD release")
        self.need(["--module", self.path("dm.kmod"), self.path("none")], "no release")

    def test_a_kernel_or_a_module(self):
        self.need([self.release], "--kernel or --module")
        self.need(["--kernel", self.path("none"), self.release], "no file")
        self.need(self.arguments("--root", "dk1"), "--root goes with --kernel")

    def test_tests(self):
        arguments = self.arguments()
        arguments[1] = self.path("none")
        self.need(arguments, "no tests")
        self.need(self.arguments("--select", "t_c"), "no test program t_c")
        self.need(self.arguments("--select", "t_a:x;y"), "no test case `x;y': it has one, two")

    def test_anita(self):
        self.need(self.arguments(), "pkgsrc")

    def test_the_right_anita(self):
        self.need(self.arguments(), "not the one that is meant", types.ModuleType("anita"))

    def test_a_port_that_anita_knows(self):
        os.rename(self.release, self.path("release/vax"))
        self.release = self.path("release/vax")
        self.need(self.arguments(), "'vax' is not the name", self.anita())

    def test_sets(self):
        os.rmdir(os.path.join(self.release, "binary/sets"))
        self.need(self.arguments(), "has no sets", self.anita())

    def test_a_tool_that_makes_the_sets_image(self):
        with mock.patch("machine.shutil.which", lambda name: name == sys.executable or None), \
                mock.patch("sys.platform", "linux"), \
                mock.patch.dict(sys.modules, anita=self.anita(), pexpect=fake.PEXPECT), \
                contextlib.redirect_stderr(io.StringIO()) as err:
            self.assertEqual(run.main(self.arguments(), io.StringIO()), run.NEEDS)
        self.assertIn("genisoimage or mkisofs", err.getvalue())

    def test_an_installation_that_succeeds(self):
        for error in (RuntimeError("install set base does not exist"), OSError("no network"),
                      fake.TIMEOUT("...")):
            self.need(self.arguments(), "installation", self.anita(install_fails=error))

    def test_a_machine(self):
        anita = self.anita()
        with mock.patch("machine.shutil.which", lambda name: None), \
                mock.patch.dict(sys.modules, anita=anita, pexpect=fake.PEXPECT), \
                contextlib.redirect_stderr(io.StringIO()) as err:
            self.assertEqual(run.main(self.arguments(), io.StringIO()), run.NEEDS)
        self.assertIn(f"it needs {anita.qemu}", err.getvalue())

    def test_a_machine_that_starts(self):
        anita = self.anita(qemu_says="-frob: invalid option")
        self.need(self.arguments("--vmm-arg=-frob"), "-frob: invalid option", anita)
        self.assertEqual(anita.ended, 1)

    def test_numbers(self):
        for wrong in (["--timeout", "0"], ["--cpus", "-1"], ["--cpus", "x"],
                      ["--memory", "1.5G"], ["--disk-size", "0"]):
            with self.assertRaises(SystemExit) as caught, contextlib.redirect_stderr(io.StringIO()):
                run.parser().parse_args(wrong)
            self.assertEqual(caught.exception.code, 2)

    def test_a_work_directory_that_qemu_can_name(self):
        arguments = self.arguments()
        arguments[3] = self.path("a,b")
        self.need(arguments, "no comma", self.anita())

    def test_a_work_directory_of_the_same_release(self):
        self.assertEqual(self.main(self.arguments(), self.anita())[0], run.OK)
        os.makedirs(self.path("release/i386/binary/sets"))
        self.release = self.path("release/i386")
        self.need(self.arguments(), "another origin", self.anita())
        os.remove(self.path("work/holds"))
        self.need(self.arguments(), "unknown release", self.anita())

    def test_files_of_the_port(self):
        for machine in (3, 183):
            with open(self.path("netbsd"), "wb") as file:
                file.write(b"\x7fELF".ljust(18, b"\0") + machine.to_bytes(2, "little"))
            self.need(self.kernel(), ", not for amd64")
            self.need(self.arguments("--h-dm", self.path("netbsd")), ", not for amd64")
        self.need(
            self.common("--image", self.path("image"), "--arch", "i386", "--kernel",
                        self.path("netbsd")),
            "netbsd is for evbarm-aarch64, not for i386",
        )

    def test_a_root_without_a_password(self):
        anita = self.anita(password=True)
        self.need(self.arguments(), "root has a password", anita)
        self.assertEqual(anita.ended, 1)

    def test_atf(self):
        anita = self.anita()
        os.remove(self.path("guest/bin/atf-report"))
        self.need(self.arguments(), "lacks one of atf-run(1), atf-report(1)", anita)

    def test_image(self):
        module = ["--module", self.path("dm.kmod")]
        self.need(self.common("--image", self.path("image"), *module), "--arch")
        self.need(self.common("--image", "none", "--arch", "amd64", *module), "no file none")
        self.need(self.arguments("--image", self.path("image")), "not both")
        self.need(self.arguments("--arch", "amd64"), "goes with --image")
        self.write("qcow2", "QFI")
        with open(self.path("qcow2"), "ab") as file:
            file.write(b"\xfb")
        self.need(self.common("--image", self.path("qcow2"), "--arch", "amd64", *module), "raw")


class Exchange(Folder):
    def names(self, *more):
        guest.write_exchange(self.path("exchange"), self.options(*more))
        with tarfile.open(self.path("exchange")) as tar:
            return {os.path.basename(m.name): tar.extractfile(m).read() for m in tar}

    def test_what_the_guest_gets(self):
        got = self.names("--select", "t_b:one", "--h-dm", self.path("netbsd"))
        self.assertEqual(
            set(got),
            {"Atffile", "t_a.sh", "t_b.sh", "t_b.only", "subr.sh", "h_dm.c", "h_dm", "dm.kmod",
             "all", "programs", "run"},
        )
        self.assertEqual(got["all"], b"t_a\nt_b\n")
        self.assertEqual(got["programs"], b"t_b\n")
        self.assertEqual(got["dm.kmod"], b"module")
        self.assertEqual(got["h_dm"], b"kernel")

    def test_selection(self):
        def chosen(*select):
            return guest.selected(self.path("tests"), select)
        self.assertEqual(chosen(), {"t_a": None, "t_b": None})
        self.assertEqual(chosen("t_b:two", "t_b:one", "t_b:two"), {"t_b": ["two", "one"]})
        self.assertEqual(chosen("t_b:two", "t_b"), {"t_b": None})
        self.assertEqual(chosen("t_b", "t_b:two"), {"t_b": None})

    def test_room(self):
        guest.write_exchange(self.path("exchange"), self.options())
        self.assertEqual(os.path.getsize(self.path("exchange")), guest.ROOM * guest.MEGABYTE)
        self.assertEqual(guest.read_results(self.path("exchange")), {})
        with mock.patch.object(guest, "RESULTS", 0), self.assertRaises(ValueError):
            guest.write_exchange(self.path("exchange"), self.options())

    def test_only_files_of_results_come_back(self):
        guest.write_exchange(self.path("exchange"), self.options())
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for name in ("results/report", "results/../../x", "/etc/passwd", "results/a/b"):
                entry = tarfile.TarInfo(name)
                entry.size = 4
                tar.addfile(entry, io.BytesIO(b"text"))
        with open(self.path("exchange"), "r+b") as file:
            file.seek(guest.RESULTS * guest.MEGABYTE)
            file.write(archive.getvalue())
        self.assertEqual(guest.read_results(self.path("exchange")), {"report": b"text"})

    def test_commands(self):
        commands = [*guest.before("wd1d"), guest.RUN, *guest.after("wd1d")]
        self.assertIn("tar xf /dev/rwd1d", commands)
        self.assertIn(f"seek={guest.RESULTS}", commands[-1])
        # The console's line discipline holds no more.
        self.assertTrue(all(len(command) < 200 for command in commands))

    def test_the_real_tests(self):
        programs = guest.programs(guest.TESTS)
        self.assertIn("t_control", programs)
        there = {name for name in os.listdir(guest.TESTS) if re.match(r"t_.*\.sh$", name)}
        self.assertEqual({f"{program}.sh" for program in programs}, there)
        for program in programs:
            cases = guest.cases(guest.TESTS, program)
            self.assertTrue(cases, program)
            text = guest.contents(os.path.join(guest.TESTS, f"{program}.sh")).decode()
            listed = text[text.index("\natf_init_test_cases()"):].replace("\\\n", " ")
            for case in cases:
                self.assertRegex(listed, rf"\b{case}\b")


class Run(Folder):
    def test_passes(self):
        anita = self.anita()
        status, out, err = self.main(self.arguments(), anita)
        self.assertEqual((status, err), (run.OK, ""))
        self.assertTrue(out.startswith("Summary for 1 test programs:\n    4 passed"), out)
        self.assertIn(f"In {self.path('work/results')}: cases, cc, console, dmesg, modload", out)
        self.assertEqual(anita.made[0], self.release + "/")
        self.assertNotIn("-kernel", anita.booted)
        self.assertIn("-no-reboot", anita.booted)
        self.assertEqual((anita.halted, anita.ended), (1, 1))

    def test_what_is_kept(self):
        self.main(self.arguments(), self.anita())
        self.assertEqual(
            self.read("work/results/cases"),
            "t_a:one passed\nt_a:two passed\nt_b:one passed\nt_b:two passed\n",
        )
        self.assertIn("tc-end: 1.7, one, passed", self.read("work/results/test.tps"))
        self.assertIn("NetBSD 10.99", self.read("work/results/dmesg"))
        self.assertIn("4 passed", self.read("work/results/report"))
        console = self.read("work/results/console")
        self.assertIn("login: ", console)
        self.assertIn("dm-tests: end t_b:two passed", console)

    def test_fails(self):
        anita = self.anita()
        anita.touch("fails")
        status, out, _ = self.main(self.arguments(), anita)
        self.assertEqual(status, run.FAILED)
        self.assertIn("4 failed", out)

    def test_a_case(self):
        status, out, _ = self.main(self.arguments("--select", "t_b:two"), self.anita())
        self.assertEqual(status, run.OK)
        self.assertEqual(self.read("work/results/cases"), "t_b:two passed\n")

    def test_no_case(self):
        self.write("tests/t_a.sh", "atf_init_test_cases()\n{\n\t:\n}\n")
        self.assertEqual(self.main(self.arguments("--select", "t_a"), self.anita())[0], run.FAILED)

    def test_a_kernel_finds_its_root(self):
        anita = self.anita()
        status, _, err = self.main(self.kernel("--cpus", "4"), anita)
        self.assertEqual(status, run.OK, err)
        at = anita.booted.index("-kernel")
        self.assertEqual(anita.booted[at + 1], self.path("netbsd"))
        self.assertEqual(anita.booted[anita.booted.index("-smp") + 1], "4")

    def test_a_kernel_finds_its_root_on_gpt(self):
        self.image_of_gpt()
        arguments = self.common("--kernel", self.path("netbsd"))
        image = ["--image", self.path("image"), "--arch", "amd64"]
        self.assertEqual(self.main([*arguments, *image], self.anita())[0], run.OK)
        status, _, err = self.main([*arguments, *image, "--root", "wd0a"], self.anita())
        self.assertEqual(status, run.FELL)
        self.assertIn("--root DEVICE", err)

    def image_of_gpt(self):
        with open(self.path("image"), "wb") as file:
            file.write(b"\0" * 512 + b"EFI PART" + b"\0" * 80)

    def test_an_image_is_not_written(self):
        self.image_of_gpt()
        before = self.read("image")
        arguments = self.common("--module", self.path("dm.kmod"))
        anita = self.anita()
        status, _, err = self.main(
            [*arguments, "--image", self.path("image"), "--arch", "amd64"], anita
        )
        self.assertEqual(status, run.OK, err)
        self.assertEqual(self.read("image"), before)
        self.assertTrue(anita.made[1]["no_install"])
        self.assertFalse(anita.made[1].get("persist"))
        self.assertTrue(anita.made[0].endswith("/amd64/"))

    def test_the_user_has_the_last_word(self):
        anita = self.anita()
        words = ["--vmm-arg=-append", "--vmm-arg", "root=wd0a -v"]
        status, _, err = self.main(self.kernel(*words), anita)
        self.assertEqual(status, run.OK, err)
        self.assertEqual(anita.booted[-2:], ["-append", "root=wd0a -v"])
        self.main(self.kernel("--vmm-arg", "-snapshot"), anita)
        self.assertEqual(anita.booted[-1], "-snapshot")

    def fell(self, anita, what, *more):
        status, out, err = self.main(self.arguments(*more), anita)
        self.assertEqual(status, run.FELL)
        self.assertIn(what, err)
        self.assertEqual(anita.ended, 1)
        return out

    def test_a_panic(self):
        out = self.fell(
            self.anita(panics_at="t_b:one"),
            "the kernel panicked: kernel diagnostic assertion (in t_b:one)",
        )
        self.assertIn("1 did not end, 2 passed", out)
        self.assertEqual(
            self.read("work/results/cases"),
            "t_a:one passed\nt_a:two passed\nt_b:one did not end\n",
        )
        self.assertIn("Begin traceback", self.read("work/results/console"))

    def test_a_panic_into_the_debugger(self):
        anita = self.anita(panics_at="t_a:two", has_ddb=True)
        self.fell(anita, "panicked: kernel diagnostic assertion (in t_a:two)")

    def test_a_panic_at_the_end(self):
        self.fell(self.anita(panics_at="halt"), "diagnostic assertion (after t_b:two)")

    def test_a_guest_that_switches_itself_off(self):
        self.assertEqual(self.main(self.arguments(), self.anita(switches_off=True))[0], run.OK)

    def test_an_interrupt(self):
        anita = self.anita()
        with mock.patch.object(fake.Guest, "stops", side_effect=KeyboardInterrupt):
            status, out, err = self.main(self.arguments(), anita)
        self.assertEqual((status, err), (run.INTERRUPTED, "run.py: interrupted\n"))
        self.assertIn(f"In {self.path('work/results')}: cases, console.\n", out)
        self.assertEqual(anita.ended, 1)

    def test_silence(self):
        self.fell(self.anita(hangs_at="t_a:two"), "for 7 seconds (in t_a:two)", "--timeout", "7")

    def test_silence_of_a_case_that_may_take_its_time(self):
        self.write("tests/t_b.sh", f"two_timeout=3600\n{PROGRAM}")
        for case, seconds in (("t_b:two", 3720), ("t_b:one", 900)):
            self.fell(self.anita(hangs_at=case), f"for {seconds} seconds (in {case})")
        # The user has the last word.
        self.fell(self.anita(hangs_at="t_b:two"), "for 7 seconds", "--timeout", "7")

    def test_a_guest_that_fell_has_no_process_left(self):
        anita = self.anita(hangs_at="t_a:one")
        os.mkfifo(self.path("guest/fifo"))
        self.write("tests/t_a.sh", f"exec 9<>$FAKE/fifo; sleep 60 >$FAKE/null 2>&1 &\n{PROGRAM}")
        self.fell(anita, "(in t_a:one)")
        with self.assertRaises(OSError) as caught:
            os.open(self.path("guest/fifo"), os.O_WRONLY | os.O_NONBLOCK)
        self.assertEqual(caught.exception.errno, errno.ENXIO)

    def test_silence_of_the_boot(self):
        self.fell(self.anita(hangs_at="boot"), "nothing came on the console for 900 seconds")

    def test_no_compiler(self):
        anita = self.anita()
        anita.touch("no-cc")
        status, _, err = self.main(self.arguments(), anita)
        self.assertEqual(status, run.NEEDS)
        self.assertIn("--h-dm", err)
        # What the compiler said is handed over although nothing ran.
        self.assertIn("not found", self.read("work/results/cc"))
        arguments = self.arguments("--h-dm", self.path("netbsd"))
        self.assertEqual(self.main(arguments, anita)[0], run.OK)

    def test_no_symbols(self):
        anita = self.anita()
        os.remove(self.path("guest/ksyms"))
        status, _, err = self.main(self.arguments(), anita)
        self.assertEqual(status, run.NEEDS)
        self.assertIn("COPY_SYMTAB=1", err)
        # A driver that is built in needs none.
        self.assertEqual(self.main(self.kernel(), anita)[0], run.OK)

    def test_a_security_level(self):
        anita = self.anita()
        anita.touch("secured")
        status, _, err = self.main(self.arguments(), anita)
        self.assertEqual(status, run.NEEDS)
        self.assertIn("options INSECURE", err)

    def test_a_module_that_is_not_loaded(self):
        anita = self.anita()
        anita.touch("bad-module")
        status, _, err = self.main(self.arguments(), anita)
        self.assertEqual(status, run.NEEDS)
        self.assertIn("does not load", err)


if __name__ == "__main__":
    unittest.main()
