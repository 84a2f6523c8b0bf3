// SPDX-License-Identifier: BSD-2-Clause

//! `cargo xtask check-kernel`: examines the objects for things that a kernel must not have.
//!
//! This file asks binutils what is in an object; `check/rules.rs` judges it.

mod rules;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::Path;

use crate::kernel::{self, Arch, Options};
use crate::kmod;
use crate::sh::{self, Result};
use rules::{Code, Section, Symbol};

/// The most bytes of `.text` and `.rodata` together. The C driver has 25 KB; formatting, checked arithmetic and
/// panics with their places are what Rust adds. A change that needs more room says why here.
///
/// The driver of today: amd64 some 493 KiB and 4 more as a module, i386 466, aarch64 447. Until its targets could serve I/O themselves it had
/// 107 KiB; six more targets, lanes (each target's futures are code of its own) and refusals that name
/// what is wrong with their numbers are 145 KiB of the rest, mirror 50, verity with its hash functions' border 32,
/// crypt with its ciphers' 30, snapshot-merge 36, and snapshots with the file systems below them most of what is left;
/// sorting a store's exceptions, and threads that lines have for themselves, 9.
const BUDGET: u64 = 504 * 1024;

/// The largest stack frame, in bytes. i386 has two pages of stack for a whole system call.
const FRAME: u64 = 1024;

/// The contents of an object, as binutils tell them.
struct Object {
    code: Code,
    sections: Vec<Section>,
    relocations: BTreeSet<String>,
    symbols: Vec<Symbol>,
}

impl Object {
    fn read(arch: Arch, path: &Path) -> Result<Object> {
        let ask = |program: &str, args: &[&str]| {
            sh::output(sh::command(arch.tool(program)).env("LC_ALL", "C").args(args).arg(path))
        };
        Ok(Object {
            code: Code::parse(&ask("objdump", &["-d", "--no-show-raw-insn", "-w"])?, arch),
            sections: rules::sections(&ask("readelf", &["-S", "-W"])?),
            relocations: rules::relocations(&ask("readelf", &["-r", "-W"])?),
            symbols: rules::symbols(&ask("nm", &["-P"])?),
        })
    }

    /// The faults of an object, however it is linked.
    fn judge(&self, arch: Arch) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.code.is_empty() {
            // Else nothing found would mean nothing.
            wrong.push("no instruction could be read".into());
        }
        wrong.extend(rules::instructions(&self.code, arch));
        wrong.extend(rules::red_zone(&self.code, arch));
        wrong.extend(rules::frames(&self.code, arch, FRAME));
        wrong.extend(rules::layout(&self.sections));
        wrong.extend(rules::size(&self.sections, BUDGET));
        wrong.extend(rules::kinds(&self.relocations, arch));
        wrong
    }

    fn undefined(&self) -> BTreeSet<&str> {
        self.symbols.iter().filter(|s| s.is_undefined()).map(|s| s.name.as_str()).collect()
    }

    fn exported(&self) -> BTreeSet<&str> {
        self.symbols.iter().filter(|s| s.is_exported()).map(|s| s.name.as_str()).collect()
    }
}

/// `cargo xtask check-kernel`.
pub fn main(args: &[String]) -> Result<()> {
    let options = Options::parse(args)?;
    let mut failed = 0;
    for arch in options.arches.clone() {
        let made = kernel::build(arch, &options)?;
        let module = kmod::build(&made, &options)?;
        sh::heading(&format!("check of {}", made.dir.display()));
        failed += report(arch, &made.object(), &made.dir.join("shim.o"), &module)?;
    }
    match failed {
        0 => Ok(()),
        1 => Err("1 thing in the objects does not belong into a kernel".into()),
        n => Err(format!("{n} things in the objects do not belong into a kernel")),
    }
}

/// Prints the faults of a port's object, and returns their number.
fn report(arch: Arch, object: &Path, shim: &Path, module: &Path) -> Result<usize> {
    let conf = sh::root().join("conf");
    let kernel = sh::list(&conf.join("kernel-symbols"))?;
    let kernel: BTreeSet<&str> = kernel.iter().map(String::as_str).collect();
    let exports = sh::list(&conf.join("exports"))?;
    let exports: BTreeSet<&str> = exports.iter().map(String::as_str).collect();

    let read = |path: &Path| Object::read(arch, path);
    let (rust, c, whole) = (read(object)?, read(shim)?, read(module)?);
    let mut findings = Vec::new();

    // The Rust side may ask the kernel and shim.c, and gives what conf/exports lists: no more,
    // and no less.
    let mut allowed = kernel.clone();
    allowed.extend(c.exported());
    let mut wrong = rust.judge(arch);
    wrong.extend(rules::undefined(&rust.undefined(), &allowed));
    wrong.extend(rules::exported(&rust.exported(), &exports));
    wrong.extend(exports.difference(&rust.exported()).map(|name| format!("{name} is missing")));
    wrong.extend(rules::landing_pads(&rust.code, arch, &exports));
    findings.push((object, wrong));

    // Symbols that the C side defines are the driver's too.
    let mut wrong = c.judge(arch);
    wrong.extend(
        c.exported()
            .iter()
            .filter(|name| !rules::is_shims(name))
            .map(|name| format!("exports {name}, which is not ours")),
    );
    findings.push((shim, wrong));

    // The module may ask the kernel only, and gives nothing.
    let mut wrong = whole.judge(arch);
    wrong.extend(rules::undefined(&whole.undefined(), &kernel));
    wrong.extend(rules::exported(&whole.exported(), &BTreeSet::new()));
    wrong.extend(rules::one_module(&whole.sections, arch));
    findings.push((module, wrong));

    let mut count = 0;
    for (path, wrong) in findings {
        for line in &wrong {
            println!("{}: {line}", path.display());
        }
        count += wrong.len();
    }
    println!(
        "{}: {} bytes of code and constants of {BUDGET} allowed; largest frame {} bytes of {FRAME}",
        object.display(),
        rules::text_size(&rust.sections),
        rules::largest_frame(&rust.code, arch),
    );
    Ok(count)
}

/// Fails unless a module declares itself once: module(9) looks no further, and a kernel that
/// finds two refuses both.
pub fn is_one_module(arch: Arch, module: &Path) -> Result<()> {
    let text =
        sh::output(sh::command("readelf").env("LC_ALL", "C").args(["-S", "-W"]).arg(module))?;
    match rules::one_module(&rules::sections(&text), arch) {
        None => Ok(()),
        Some(wrong) => Err(format!("{}: {wrong}", module.display())),
    }
}
