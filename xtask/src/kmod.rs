// SPDX-License-Identifier: BSD-2-Clause

//! `cargo xtask kmod`: the driver as dm.kmod, for modload(8).

use std::path::PathBuf;

use crate::kernel::{self, Arch, Made, Options};
use crate::sh::{self, Result};
use crate::{check, elf};

/// `cargo xtask kmod`.
pub fn main(args: &[String]) -> Result<()> {
    let options = Options::parse(args)?;
    for arch in options.arches.clone() {
        let made = kernel::build(arch, &options)?;
        let module = build(&made, &options)?;
        println!(
            "{} is for {} kernels of {}.\n\
             modload(8) takes it only there: a release takes modules of that release and its \
             updates, a kernel of -current (x.99.y) those of exactly that version. For another \
             kernel name its source tree with --src.",
            module.display(),
            arch.name(),
            options.release()?
        );
    }
    Ok(())
}

/// Compiles the C side as a module's and links it with the object.
pub fn build(made: &Made, options: &Options) -> Result<PathBuf> {
    let arch = made.arch;
    sh::heading(&format!("dm.kmod for {}, {}", arch.name(), options.release()?));
    let shim = compile_shim(made, options)?;
    let module = made.dir.join("dm.kmod");
    let mut ld = sh::command(arch.tool("ld"));
    // -d gives common symbols their place: the loader knows none.
    ld.args(["-m", arch.emulation(), "-r", "-d", "-T"]);
    ld.arg(sh::root().join("conf/kmodule.ld")).arg("-o").arg(&module);
    sh::run(ld.arg(made.object()).arg(&shim))?;
    // No other object calls a module's functions, and visible names clash with those of a kernel that has a dm built
    // in, before module(9) can say that it has.
    let mut objcopy = sh::command(arch.tool("objcopy"));
    sh::run(objcopy.args(["--keep-global-symbol", "dm_modcmd"]).arg(&module))?;
    elf::plain_calls(&module)?;
    check::is_one_module(arch, &module)?;
    Ok(module)
}

/// shim.c as a module has it, against the headers that the object is bound to.
fn compile_shim(made: &Made, options: &Options) -> Result<PathBuf> {
    let shim = made.dir.join("shim.o");
    let mut clang = sh::command("clang");
    clang.args(["-c", "-O2", "-std=gnu99", "-ffreestanding", "-nostdinc", "-fno-strict-aliasing"]);
    clang.args(["-fno-common", "-fno-pic", "-fno-omit-frame-pointer", "-fno-stack-protector"]);
    clang.args(["-fno-delete-null-pointer-checks", "-fno-asynchronous-unwind-tables"]);
    clang.args(["-D_KERNEL", "-D_MODULE", "-DSYSCTL_INCLUDE_DESCR"]);
    clang.args(["-Wall", "-Werror=implicit-function-declaration", "-Wno-unused-function"]);
    let (flags, bundled) = arch_flags(made.arch);
    clang.args(flags);
    if options.debug {
        clang.arg("-g");
    }
    match &options.src {
        Some(src) => {
            // build.rs made the links that a kernel's build directory has: machine, amd64, x86.
            for dir in [made.links.clone(), src.join("sys"), src.join("common/include")] {
                clang.arg("-isystem").arg(dir);
            }
        }
        None => {
            clang.arg("-D__NetBSD_Version__=1100000000");
            if made.arch == Arch::Aarch64 {
                clang.arg("-isystem").arg(sh::root().join("sys/netbsd/include-aarch64"));
            }
            clang.arg("-isystem").arg(sh::root().join("sys/netbsd/include"));
            for dir in [bundled, "generic-netbsd"] {
                clang.arg("-isystem").arg(sh::headers_dir().join(dir));
            }
        }
    }
    sh::run(clang.arg(made.dir.join("shim.c")).arg("-o").arg(&shim))?;
    Ok(shim)
}

/// A port's own flags, and its folder among the bundled headers.
fn arch_flags(arch: Arch) -> (&'static [&'static str], &'static str) {
    match arch {
        Arch::Amd64 => (
            &[
                "--target=x86_64-unknown-netbsd",
                "-mcmodel=kernel",
                "-mno-red-zone",
                "-mno-mmx",
                "-mno-sse",
                "-mno-avx",
                "-msoft-float",
                "-Damd64",
                "-Dx86_64",
            ],
            "x86_64-netbsd-none",
        ),
        // The stack of an i386 kernel is aligned to 4 bytes and no more.
        Arch::I386 => (
            &[
                "--target=i486-unknown-netbsdelf",
                "-march=i486",
                "-mstack-alignment=4",
                "-mno-mmx",
                "-mno-sse",
                "-mno-avx",
                "-msoft-float",
                "-Di386",
            ],
            "x86-netbsd-none",
        ),
        Arch::Aarch64 => (
            &[
                "--target=aarch64-unknown-netbsd",
                "-march=armv8-a+nofp+nosimd",
                "-mno-outline-atomics",
                "-mbranch-protection=pac-ret+bti",
            ],
            "aarch64-netbsd-none",
        ),
    }
}
