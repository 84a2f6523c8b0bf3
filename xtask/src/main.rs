// SPDX-License-Identifier: BSD-2-Clause

//! The project's tasks: `cargo xtask help` lists them.

mod check;
mod demo;
#[cfg(test)]
mod directions;
mod doc;
mod elf;
mod kernel;
mod kmod;
mod linux;
mod lvm2;
#[cfg(test)]
mod manual;
mod nbd;
mod rump;
mod sanitize;
mod setup;
mod sh;
mod simulate;
mod test;
mod toolchain;

use std::process::ExitCode;

const HELP: &str = "\
The project's tasks. Each installs what it needs and lacks, and says so.

  cargo xtask demo
      Show the driver at work: file systems on mapped disk images.
  cargo xtask test
      Everything that must hold: format, lints, tests, the kernel objects and
      their check, the manual pages. Stops at the first failure.

  cargo xtask kernel [--arch amd64|i386|aarch64] [--src TREE] [--out DIR]
                     [--debug] [--diagnostic]
      Make rustdm.o, which a NetBSD kernel links, and beside it all that the
      kernel's own make needs: target/kernel/ARCH. Without --arch, all ports.
  cargo xtask kmod [--arch amd64|i386|aarch64] [--src TREE] [--out DIR]
                   [--debug] [--diagnostic]
      Make dm.kmod for modload(8), in the same folder.
        --src TREE  a NetBSD source tree: the kernel's own, since structures
                    differ between releases (also: NETBSDSRCDIR). Without it
                    the objects are for NetBSD 11.
        --out DIR   put the results into DIR/ARCH
        --debug     keep line numbers, for a kernel built with -g
        --diagnostic
                    with assertions, for a kernel with options DIAGNOSTIC
  cargo xtask rump --src TREE [--out DIR] [--debug]
      Make librumpdev_dm for rump kernels of that tree on x86_64: target/rump.
      CPPFLAGS: what its librump was built with, such as -DRUMP_USE_CTOR.
  cargo xtask check-kernel [--arch ARCH] [--src TREE] [--out DIR]
      Make rustdm.o and dm.kmod, and look into them for what a kernel must not
      have.

  cargo xtask linux [--quick] [--verbose] [SCRIPT...]
      Run scripts of commands and I/O on Linux's device mapper, in a QEMU guest,
      and on the hosted driver, and compare: all of regress/linux/scripts, or
      those named, by a name there or a file.
        --quick     only those that say so
        --verbose   show what both said, also where it is the same
  cargo xtask bench [--linux] [ARGUMENT...]
      Measure the hosted driver; arguments go to `cargo bench -p dm-host`.
        --linux     then Linux, in a guest that counts instructions
  cargo xtask bench --nbd [ROW]
      Compare dm-host's NBD server with nbdkit's file plugin, on one image: time
      and processor time of each row, or of those whose names hold ROW.
  cargo xtask sanitize address|thread|miri [ARGUMENT...]
      Run the tests of dm-host that put I/O, control and failures under stress
      with one of the compiler's sanitizers, or those that the arguments name to
      `cargo test`.
  cargo xtask simulate [--seconds N | --games N] [--target T] [--seed N]
                       [--steps N] [--story LINES]
      Play games on simulated disks that lose power, for a minute or as told,
      and check every promise. Prints the story of the first game that is lost,
      and the seed that plays it again. A seed alone plays that one game.
  cargo xtask lvm2-tests --lvm2-tests DIR [NAME...]
      Run LVM2's own test scripts on the driver, from a copy of its sources that
      you have: those in regress/linux/tools/lvm2.list, or those that are named.
      Wants root, /dev/fuse and loop devices.
  cargo xtask doc
      Format the manual pages and the code's documentation: target/doc.
  cargo xtask setup [hosted|tools|linux|linux-tools|kernel|lint|all]...
      Only install what is missing: to build and run the driver on this machine
      (hosted), for the demo and the tests with other tools (tools), for the
      guest with Linux (linux), for the tests with Linux's own tools
      (linux-tools), for the kernel objects (kernel), for format, lints and
      manual pages (lint).
  cargo xtask help
      This text.
";

fn run(task: &str, args: &[String]) -> sh::Result<()> {
    match task {
        "demo" => demo::main(args),
        "test" => test::main(args),
        "kernel" => kernel::main(args),
        "kmod" => kmod::main(args),
        "rump" => rump::main(args),
        "check-kernel" => check::main(args),
        "bench" => test::bench(args),
        "linux" => linux::main(args),
        "sanitize" => sanitize::main(args),
        "simulate" => simulate::main(args),
        "doc" => doc::main(args),
        "lvm2-tests" => lvm2::main(args),
        "setup" => setup::main(args),
        _ => Err(format!("no task called `{task}`: see `cargo xtask help`")),
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let wants_help = args.iter().any(|arg| arg == "--help" || arg == "-h");
    let (task, rest) = match args.split_first() {
        Some((task, rest)) if !wants_help && task != "help" => (task, rest),
        _ => {
            print!("{HELP}");
            // Nothing asked for is a mistake; asking for help is not.
            return if args.is_empty() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    match run(task, rest) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::kernel::Arch;

    #[test]
    fn the_help_has_every_port() {
        let arches = Arch::ALL.map(Arch::name).join("|");
        assert_eq!(super::HELP.matches(&format!("--arch {arches}]")).count(), 2);
    }
}
