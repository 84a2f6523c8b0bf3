// SPDX-License-Identifier: BSD-2-Clause

//! `cargo xtask sanitize`: the hosted kernel, the driver, the shim and the standard library, all
//! compiled for one of the compiler's sanitizers; or the driver alone, under Miri.

use std::path::PathBuf;

use crate::setup::{self, Need};
use crate::sh::{self, Result};
use crate::toolchain::{self, Toolchain};

/// The programs of `regress/host/tests` whose business is memory and threads. The others have
/// allocators of their own, or start processes.
const TESTS: &[&str] = &[
    "data",
    "disk",
    "disk_label",
    "disk_own_label",
    "fault",
    "fault_io",
    "hostile",
    "life",
    "life_end",
    "life_revoke",
    "stress",
];

/// `cargo xtask sanitize address|thread|miri [ARGUMENT]...`
pub fn main(args: &[String]) -> Result<()> {
    let usage = "say which: cargo xtask sanitize address|thread|miri [ARGUMENT...]";
    let (kind, rest) = args.split_first().ok_or(usage)?;
    let (runtime, offset) = match kind.as_str() {
        // For NetBSD, which its structures are, clang would put the sanitizer's memory elsewhere.
        "address" => ("asan", " -mllvm -asan-mapping-offset=0x7fff8000"),
        "thread" => ("tsan", ""),
        "miri" => return miri(rest),
        _ => return Err(usage.into()),
    };
    setup::ensure(&[Need::Hosted, Need::Kernel])?;
    let toolchain = toolchain::find()?;
    let runtime = find_runtime(&toolchain, runtime)?;
    let mut command = toolchain.cargo();
    command.args(["test", "-Zbuild-std", "--package", "dm-host"]);
    command.args(["--target", "x86_64-unknown-linux-gnu", "--target-dir"]);
    command.arg(sh::target_dir().join(kind));
    // rustc names the system's libraries itself, but before this one.
    let link = format!("-Wl,--whole-archive,{},--no-whole-archive", runtime.display());
    let flags = format!(
        "-Zsanitizer={kind} -Zexternal-clangrt -Clink-arg=-fuse-ld=lld -Clink-arg={link} \
         -Clink-args=-lstdc++ -Clink-args=-lm -Clink-args=-ldl -Clink-args=-lresolv -Clink-args=-lc"
    );
    command.env("RUSTFLAGS", flags);
    // The shim is compiled by clang, whose sanitizers are the compiler's.
    command.env("CFLAGS", format!("-fsanitize={kind} -g{offset}"));
    // Memory that is used after it went back to a pool is only seen if it does not stay there.
    if kind == "address" {
        command.env("DM_HOST_POOLS", "none");
    }
    // Tests unwind, and one standard library is enough; without any optimisation it takes long.
    command.env("CARGO_PROFILE_DEV_PANIC", "unwind").env("CARGO_PROFILE_DEV_OPT_LEVEL", "1");
    if rest.is_empty() {
        command.args(TESTS.iter().flat_map(|test| ["--test", test]));
    }
    sh::run(command.args(rest))
}

/// Runs the driver under Miri, on a stand-in for C (`regress/miri`). Miri is a part of rustup's nightly
/// toolchains only.
fn miri(arguments: &[String]) -> Result<()> {
    let nightly = sh::has("rustup")
        && sh::command("rustup")
            .args(["run", "nightly", "cargo", "miri", "--version"])
            .output()
            .is_ok_and(|output| output.status.success());
    if !nightly {
        return Err(
            "there is no Miri: it comes with `rustup toolchain install nightly --component \
                    miri,rust-src`"
                .into(),
        );
    }
    setup::ensure(&[Need::Hosted])?;
    let mut command = sh::command("rustup");
    command.args(["run", "nightly", "cargo", "miri", "test", "--package", "rustdm", "--lib"]);
    command.arg("--target-dir").arg(sh::target_dir().join("miri"));
    for name in ["RUSTUP_TOOLCHAIN", "CARGO", "RUSTC", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
        command.env_remove(name);
    }
    command.arg("miri::");
    sh::run(command.args(arguments))
}

/// The sanitizer's runtime, of the LLVM that the compiler was built with.
fn find_runtime(toolchain: &Toolchain, name: &str) -> Result<PathBuf> {
    let llvm = toolchain.llvm()?;
    let path =
        format!("/usr/lib/llvm-{llvm}/lib/clang/{llvm}/lib/linux/libclang_rt.{name}-x86_64.a");
    let path = PathBuf::from(path);
    if !path.is_file() || !sh::has("ld.lld") {
        let package = format!("libclang-rt-{llvm}-dev");
        println!("setup: installing {package} and lld: the sanitizers' runtime, and its linker");
        setup::apt_install(&[&package, "lld"])?;
    }
    if path.is_file() { Ok(path) } else { Err(format!("there is no {}", path.display())) }
}
