// SPDX-License-Identifier: BSD-2-Clause

//! `cargo xtask rump`: the driver as librumpdev_dm, a component of a rump kernel (rump(7)).
//!
//! A rump kernel is NetBSD's own code in a process, and on x86 it has the structures of a loadable
//! module's kernel. So this is the module's build again, but position-independent, and with the
//! kernel's names prefixed, so that they do not meet those of the process.

use std::collections::BTreeSet;
use std::env;
use std::path::{Path, PathBuf};

use crate::kernel::{self, Arch, Options};
use crate::setup::{self, Need};
use crate::sh::{self, Result};

/// The version of every rump component's interface, part of the name that programs ask for.
const SONAME: &str = "librumpdev_dm.so.0";

/// `cargo xtask rump`.
pub fn main(args: &[String]) -> Result<()> {
    let options = Options::parse(args)?;
    let library = build(tree(&options)?, &options)?;
    println!(
        "{} takes the place of NetBSD's own in rump kernels of {}; beside it is what to link \
         statically.",
        library.display(),
        options.release()?
    );
    Ok(())
}

/// The tree of the rump kernel.
fn tree(options: &Options) -> Result<&Path> {
    if options.arches != Arch::ALL && options.arches != [Arch::Amd64] {
        return Err("the rump flavour is for x86_64 only".into());
    }
    let tree = options.src.as_deref();
    tree.ok_or_else(|| "a rump kernel is bound to its source tree: name it with --src".into())
}

fn build(src: &Path, options: &Options) -> Result<PathBuf> {
    setup::ensure(&[Need::Kernel])?;
    sh::heading(&format!("librumpdev_dm, {}", options.release()?));
    let (archive, out_dir) = kernel::compile("rump", options)?;
    let dir = options.out.clone().unwrap_or_else(|| sh::target_dir().join("rump"));
    sh::mkdir(&dir)?;

    let rust = dir.join("rustdm.o");
    kernel::link(Arch::Amd64, &archive, &rust)?;
    kernel::trim(Arch::Amd64, &rust, options.debug)?;
    let shim = dir.join("dm_rump.o");
    let flags = env::var("CPPFLAGS").unwrap_or_default();
    let flags: Vec<&str> = flags.split_whitespace().collect();
    compile_shim(src, &out_dir, &flags, &shim)?;
    for object in [&rust, &shim] {
        rename(object)?;
    }

    let _ = std::fs::remove_file(dir.join("librumpdev_dm.a"));
    let mut ar = sh::command("ar");
    sh::run(ar.arg("rcs").arg(dir.join("librumpdev_dm.a")).args([&rust, &shim]))?;
    let library = dir.join(SONAME);
    let mut ld = sh::command("ld");
    ld.args(["-m", Arch::Amd64.emulation(), "-shared", "-x", "-z", "text", "-soname", SONAME]);
    if !flags.iter().any(|flag| flag.starts_with("-DRUMP_USE_CTOR")) {
        // Link sets: without this script a shared library does not tell where its own are.
        ld.arg("-T").arg(src.join("sys/rump/ldscript.rump"));
    }
    sh::run(ld.arg("-o").arg(&library).args([&rust, &shim]))?;
    check(&library)?;
    Ok(library)
}

/// Compiles shim.c and the component, as sys/rump/Makefile.rump compiles its own for x86; `extra` are further options
/// that the rump kernel was built with.
fn compile_shim(src: &Path, out_dir: &Path, extra: &[&str], shim: &Path) -> Result<()> {
    let mut clang = sh::command("clang");
    clang.args(["-c", "-O2", "-std=gnu99", "-ffreestanding", "-nostdinc", "-fno-strict-aliasing"]);
    clang.args(["--target=x86_64-unknown-netbsd", "-Damd64", "-Dx86_64", "-fPIC", "-fno-common"]);
    clang.args(["-fno-delete-null-pointer-checks", "-fno-asynchronous-unwind-tables"]);
    clang.args(["-Wall", "-Werror=implicit-function-declaration", "-Wno-unused-function"]);
    clang.args(["-DDIAGNOSTIC", "-DKTRACE"]).args(extra);
    let rump = src.join("sys/rump/include");
    clang.arg("-imacros").arg(rump.join("opt/opt_rumpkernel.h"));
    clang.arg("-I").arg(sh::root().join("sys/netbsd")).arg("-I").arg(out_dir);
    // The port's own machine/ before rump's: on x86 a rump kernel has the kernel's structures.
    let links = out_dir.join("machine-links");
    for dir in [&links, &src.join("common/include"), &rump, &rump.join("opt"), &src.join("sys")] {
        clang.arg("-isystem").arg(dir);
    }
    sh::run(clang.arg(sh::root().join("conf/dm_rump.c")).arg("-o").arg(shim))
}

/// Gives a kernel's names the prefix that they have in a rump kernel.
fn rename(object: &Path) -> Result<()> {
    let table = object.with_extension("names");
    let lines: String = names(object, "-g")?
        .iter()
        .filter(|name| is_kernels(name))
        .map(|name| format!("{name} rumpns_{name}\n"))
        .collect();
    sh::write(&table, lines)?;
    sh::run(sh::command("objcopy").arg("--redefine-syms").arg(&table).arg(object))?;
    let _ = std::fs::remove_file(table);
    Ok(())
}

/// `true` if a name is prefixed: all are but rump's own, and those that compilers and linkers make.
fn is_kernels(name: &str) -> bool {
    !["rump", "RUMP", "__", "_GLOBAL_OFFSET_TABLE"].iter().any(|start| name.starts_with(start))
}

/// The names in an object, of those that nm(1) lists with an option.
fn names(object: &Path, option: &str) -> Result<BTreeSet<String>> {
    let text = sh::output(sh::command("nm").env("LC_ALL", "C").args(["-P", option]).arg(object))?;
    Ok(text.lines().filter_map(|line| line.split_whitespace().next()).map(String::from).collect())
}

/// Fails if the library asks for a function that is neither in the written list of the kernel's
/// nor rump's.
fn check(library: &Path) -> Result<()> {
    let known = sh::list(&sh::root().join("conf/kernel-symbols"))?;
    let unknown: Vec<String> =
        names(library, "-uD")?.into_iter().filter(|name| !is_known(name, &known)).collect();
    match unknown.as_slice() {
        [] => Ok(()),
        names => Err(format!("{}: no rump kernel has {}", library.display(), names.join(", "))),
    }
}

/// Names that the component needs besides the driver's functions; module(9) makes the last two where constructors
/// take the place of link sets.
const COMPONENT: &[&str] = &["do_sys_mkdir", "cold", "modinfo_boot_chain"];

fn is_known(name: &str, kernel: &[String]) -> bool {
    match name.strip_prefix("rumpns_") {
        Some(name) => COMPONENT.contains(&name) || kernel.iter().any(|known| known == name),
        None => name.starts_with("rump_") || name == "__tls_get_addr",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixed_names() {
        for name in ["memcpy", "dmopen", "_kernel_lock", "VOP_OPEN"] {
            assert!(is_kernels(name), "{name}");
        }
        for name in ["rump_component_load", "rumpns_x", "RUMP_x", "__start_link_set_modules"] {
            assert!(!is_kernels(name), "{name}");
        }
    }

    #[test]
    fn only_known_functions() {
        let kernel = ["biodone".to_string()];
        for name in ["rumpns_biodone", "rumpns_do_sys_mkdir", "rump_vfs_makedevnodes"] {
            assert!(is_known(name, &kernel), "{name}");
        }
        for name in ["biodone", "rumpns_malloc", "memcpy"] {
            assert!(!is_known(name, &kernel), "{name}");
        }
    }

    #[test]
    fn wants_a_tree_of_x86_64() {
        let options = |arches: &[Arch], src: Option<&str>| Options {
            arches: arches.to_vec(),
            src: src.map(PathBuf::from),
            out: None,
            debug: false,
            diagnostic: false,
        };
        tree(&options(&Arch::ALL, None)).unwrap_err();
        tree(&options(&[Arch::I386], Some("/usr/src"))).unwrap_err();
        for arches in [&Arch::ALL[..], &[Arch::Amd64]] {
            assert_eq!(tree(&options(arches, Some("/usr/src"))), Ok(Path::new("/usr/src")));
        }
    }
}
