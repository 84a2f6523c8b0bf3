// SPDX-License-Identifier: BSD-2-Clause

//! `cargo xtask setup`: installs the parts of the system that a build, the demo and the tests need. Each part is
//! looked for first, so that a second run does nothing.

use std::path::Path;
use std::{env, fs};

use crate::sh::{self, Result};
use crate::toolchain;

/// A purpose that needs parts of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The driver in a process of this machine.
    Hosted,
    /// The demo, and tests with other people's tools.
    Tools,
    /// A guest with Linux, to compare with.
    Linux,
    /// Linux's own device-mapper tools, and programs that use their devices.
    LinuxTools,
    /// The objects for a NetBSD kernel.
    Kernel,
    /// Formatting, lints and the manual pages' check.
    Lint,
}

impl Need {
    const ALL: [Need; 6] =
        [Need::Hosted, Need::Tools, Need::Linux, Need::LinuxTools, Need::Kernel, Need::Lint];

    fn name(self) -> &'static str {
        match self {
            Need::Hosted => "hosted",
            Need::Tools => "tools",
            Need::Linux => "linux",
            Need::LinuxTools => "linux-tools",
            Need::Kernel => "kernel",
            Need::Lint => "lint",
        }
    }
}

/// A way to find out whether a part is there.
enum Probe {
    Program(&'static str),
    Libclang,
    RustSource,
    /// A subcommand of the cargo that runs us.
    Cargo(&'static str),
}

impl Probe {
    fn found(&self) -> bool {
        match self {
            Probe::Program(name) => sh::has(name),
            Probe::Libclang => has_libclang(),
            Probe::RustSource => toolchain::find().is_ok(),
            Probe::Cargo(name) => sh::succeeds(sh::cargo().args([name, "--version"])),
        }
    }
}

/// A part of the system that is needed.
struct Item {
    need: Need,
    probe: Probe,
    /// The Debian packages that have the part.
    packages: &'static [&'static str],
    what_for: &'static str,
}

const fn item(
    need: Need,
    probe: Probe,
    packages: &'static [&'static str],
    what_for: &'static str,
) -> Item {
    Item { need, probe, packages, what_for }
}

const ITEMS: &[Item] = &[
    item(Need::Hosted, Probe::Program("clang"), &["clang"], "compiles the C side"),
    item(Need::Hosted, Probe::Libclang, &["libclang-dev"], "reads NetBSD's headers"),
    item(Need::Hosted, Probe::Program("python3"), &["python3"], "fetches NetBSD's headers"),
    item(
        Need::Tools,
        Probe::Program("nbdkit"),
        &["nbdkit"],
        "what the NBD server is compared with",
    ),
    item(Need::Tools, Probe::Program("nbdcopy"), &["libnbd-bin"], "copies over NBD"),
    item(Need::Tools, Probe::Program("qemu-img"), &["qemu-utils"], "another client for NBD"),
    item(Need::Tools, Probe::Program("cryptsetup"), &["cryptsetup-bin"], "makes LUKS images"),
    item(Need::Tools, Probe::Program("makefs"), &["makefs"], "makes an FFS image"),
    item(Need::Tools, Probe::Program("mke2fs"), &["e2fsprogs"], "makes and checks an ext4 image"),
    item(Need::Tools, Probe::Program("valgrind"), &["valgrind"], "looks for errors in memory"),
    item(
        Need::Linux,
        Probe::Program("qemu-system-x86_64"),
        &["qemu-system-x86", "qemu-utils"],
        "runs a guest with Linux",
    ),
    item(Need::Linux, Probe::Program("busybox"), &["busybox-static"], "the guest's shell"),
    item(Need::Linux, Probe::Program("cpio"), &["cpio"], "packs the guest's files"),
    item(Need::Linux, Probe::Program("depmod"), &["kmod"], "finds which modules need which"),
    item(Need::Linux, Probe::Program("dmsetup"), &["dmsetup"], "Linux's tools, for the guest"),
    item(Need::Linux, Probe::Program("lvm"), &["lvm2"], "Linux's tools, for the guest"),
    item(
        Need::Linux,
        Probe::Program("cryptsetup"),
        &["cryptsetup-bin"],
        "Linux's tools, for the guest",
    ),
    item(
        Need::Linux,
        Probe::Program("thin_check"),
        &["thin-provisioning-tools"],
        "Linux's tools, for the guest",
    ),
    item(
        Need::LinuxTools,
        Probe::Program("dmsetup"),
        &["dmsetup"],
        "Linux's own tool for the driver",
    ),
    item(Need::LinuxTools, Probe::Program("lvm"), &["lvm2"], "makes volumes on the driver"),
    item(
        Need::LinuxTools,
        Probe::Program("mke2fs"),
        &["e2fsprogs"],
        "makes and checks file systems",
    ),
    item(Need::LinuxTools, Probe::Program("mkfs.btrfs"), &["btrfs-progs"], "resizes a mounted one"),
    item(Need::LinuxTools, Probe::Program("losetup"), &["mount"], "looks at loop devices"),
    item(Need::Kernel, Probe::Program("clang"), &["clang"], "compiles the C side"),
    item(Need::Kernel, Probe::Libclang, &["libclang-dev"], "reads NetBSD's headers"),
    item(Need::Kernel, Probe::Program("objdump"), &["binutils"], "links and checks the objects"),
    item(
        Need::Kernel,
        Probe::Program("aarch64-linux-gnu-objdump"),
        &["binutils-aarch64-linux-gnu"],
        "links and checks aarch64's objects",
    ),
    item(
        Need::Kernel,
        Probe::RustSource,
        &["rustc-web", "cargo-web", "rust-web-src"],
        "a Rust compiler with its sources, to build `core` for a kernel",
    ),
    item(Need::Lint, Probe::Cargo("fmt"), &["rustfmt-web"], "checks the format"),
    item(Need::Lint, Probe::Cargo("clippy"), &["rust-web-clippy"], "finds lints"),
    item(Need::Lint, Probe::Program("mandoc"), &["mandoc"], "formats manual pages"),
];

/// NetBSD's headers, as a Python package of another project carries them: netbsd-11's.
const HEADERS: &str = "ziglang==0.17.1";
/// The folders of headers in that package.
const HEADER_DIRS: [&str; 4] =
    ["generic-netbsd", "x86_64-netbsd-none", "x86-netbsd-none", "aarch64-netbsd-none"];

/// `cargo xtask setup [NEED]...`
pub fn main(args: &[String]) -> Result<()> {
    let mut needs = Vec::new();
    for arg in args {
        match Need::ALL.iter().find(|need| need.name() == arg) {
            Some(need) => needs.push(*need),
            None if arg == "all" => needs.extend(Need::ALL),
            None => {
                return Err(format!(
                    "no need called `{arg}`: hosted, tools, linux, linux-tools, kernel, lint, all"
                ));
            }
        }
    }
    if needs.is_empty() {
        needs.extend(Need::ALL);
    }
    if ensure(&needs)? == 0 {
        println!("Everything is there.");
    }
    Ok(())
}

/// Installs the missing parts for these needs, and names them. The answer is their number.
pub fn ensure(needs: &[Need]) -> Result<usize> {
    let mut missing = missing(needs);
    let count = missing.len() + usize::from(wants_headers(needs));
    // Components that rustup can add belong to the running toolchain, not to the system.
    missing.retain(|item| !rustup_adds(&item.probe));
    if !missing.is_empty() {
        install(&missing)?;
    }
    if wants_headers(needs) {
        fetch_headers()?;
    }
    Ok(count)
}

fn missing(needs: &[Need]) -> Vec<&'static Item> {
    let mut missing: Vec<&Item> = Vec::new();
    for item in ITEMS.iter().filter(|item| needs.contains(&item.need)) {
        let asked = missing.iter().any(|other| other.packages == item.packages);
        if !asked && !item.probe.found() {
            missing.push(item);
        }
    }
    missing
}

/// `true` if rustup could give the running toolchain a missing component.
fn rustup_adds(probe: &Probe) -> bool {
    let component = match probe {
        Probe::Cargo("fmt") => "rustfmt",
        Probe::Cargo(name) => name,
        _ => return false,
    };
    if env::var_os("RUSTUP_TOOLCHAIN").is_none() || !sh::has("rustup") {
        return false;
    }
    println!("setup: adding {component} to the toolchain");
    sh::run(sh::command("rustup").args(["component", "add", component])).is_ok()
}

fn install(missing: &[&Item]) -> Result<()> {
    let mut packages: Vec<&str> = Vec::new();
    println!("setup: missing here:");
    for item in missing {
        println!("  {:34} {}", item.packages.join(" "), item.what_for);
        packages.extend(item.packages);
    }
    apt_install(&packages)?;
    match missing.iter().find(|item| !item.probe.found()) {
        None => Ok(()),
        Some(item) => Err(format!(
            "{} is installed, but what it is for ({}) still does not work",
            item.packages.join(" "),
            item.what_for
        )),
    }
}

/// Installs Debian's packages.
pub fn apt_install(packages: &[&str]) -> Result<()> {
    if !sh::has("apt-get") {
        return Err(format!(
            "this system has no apt-get: install what Debian calls {} with what it has instead, \
             then try again",
            packages.join(" ")
        ));
    }
    let apt = apt().ok_or_else(|| {
        format!(
            "to install them one must be root, and there is no sudo: as root, run\n  \
             apt-get install {}",
            packages.join(" ")
        )
    })?;
    println!("setup: installing them with apt-get");
    let run = |args: &[&str]| {
        let (program, first) = apt.split_first().ok_or("no apt-get")?;
        let mut command = sh::command(program);
        command.args(first).env("DEBIAN_FRONTEND", "noninteractive");
        sh::run(command.args(["-q", "-o", "Dpkg::Use-Pty=0"]).args(args))
    };
    run(&["update"])?;
    let install = |options: &[&str], packages: &[String]| {
        let mut args = vec!["install", "--yes", "--no-install-recommends"];
        args.extend(options);
        args.extend(packages.iter().map(String::as_str));
        run(&args)
    };
    let packages: Vec<String> = packages.iter().map(|package| (*package).to_owned()).collect();
    let installed = install(&[], &packages);
    match (installed, one_qemu(&packages)) {
        (Err(_), Some(packages)) => {
            println!("setup: once more, with QEMU's parts of one version");
            install(&["--allow-downgrades"], &packages)
        }
        (installed, _) => installed,
    }
}

/// The packages with QEMU's of the one version that apt has: a newer one of some, from elsewhere,
/// would keep the others out.
fn one_qemu(packages: &[String]) -> Option<Vec<String>> {
    const SYSTEM: &str = "qemu-system-x86";
    if !packages.iter().any(|package| package == SYSTEM) {
        return None;
    }
    let policy = sh::output(sh::command("apt-cache").args(["policy", SYSTEM])).ok()?;
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    let versioned = |package: &String| match package.starts_with("qemu-") {
        true => format!("{package}={version}"),
        false => package.clone(),
    };
    Some(packages.iter().map(versioned).collect())
}

/// The command line of apt-get: as the present user if that is root, or through sudo.
fn apt() -> Option<Vec<&'static str>> {
    let root = sh::output(sh::command("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    if root {
        Some(vec!["apt-get"])
    } else {
        // sudo keeps no environment: debconf must not ask all the same.
        sh::has("sudo").then(|| vec!["sudo", "DEBIAN_FRONTEND=noninteractive", "apt-get"])
    }
}

/// `true` if there is a libclang where bindgen's loader looks.
fn has_libclang() -> bool {
    let named = env::var_os("LIBCLANG_PATH").map(|path| Path::new(&path).to_path_buf());
    let mut dirs: Vec<_> = named.into_iter().collect();
    let fixed =
        ["/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/pkg/lib", "/usr/lib/x86_64-linux-gnu"];
    dirs.extend(fixed.map(|dir| Path::new(dir).to_path_buf()));
    if let Ok(lib) = fs::read_dir("/usr/lib") {
        let llvm = lib.flatten().map(|entry| entry.path());
        dirs.extend(
            llvm.filter(|path| path.to_string_lossy().contains("llvm")).map(|p| p.join("lib")),
        );
    }
    dirs.iter().any(|dir| {
        fs::read_dir(dir).is_ok_and(|files| {
            files.flatten().any(|file| {
                let name = file.file_name().to_string_lossy().into_owned();
                // The C interface, not libclang-cpp.
                name.starts_with("libclang.so")
                    || name.starts_with("libclang-")
                        && !name.starts_with("libclang-cpp")
                        && name.contains(".so")
            })
        })
    })
}

fn wants_headers(needs: &[Need]) -> bool {
    let bound = needs.iter().any(|need| matches!(need, Need::Hosted | Need::Kernel));
    let dir = sh::headers_dir();
    bound
        && env::var_os("NETBSDSRCDIR").is_none()
        && HEADER_DIRS.iter().any(|name| !dir.join(name).is_dir())
}

/// Unpacks only NetBSD's headers from the package, each folder whole or not at all.
const UNPACK: &str = r#"
import os, shutil, sys, zipfile
wheel, to, names = sys.argv[1], sys.argv[2], sys.argv[3:]
new = to + ".new"
shutil.rmtree(new, ignore_errors=True)
prefix = "ziglang/lib/libc/include/"
with zipfile.ZipFile(wheel) as package:
    for file in package.namelist():
        inside = file[len(prefix):] if file.startswith(prefix) else ""
        if inside.split("/")[0] in names and not inside.endswith("/"):
            path = os.path.join(new, inside)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with package.open(file) as source, open(path, "wb") as copy:
                shutil.copyfileobj(source, copy)
os.makedirs(to, exist_ok=True)
for name in names:
    if not os.path.isdir(os.path.join(to, name)):
        os.rename(os.path.join(new, name), os.path.join(to, name))
shutil.rmtree(new)
"#;

fn fetch_headers() -> Result<()> {
    let to = sh::headers_dir();
    let scratch = sh::target_dir().join("setup");
    sh::mkdir(&scratch)?;
    let python = python_with_pip()?;
    println!("setup: fetching NetBSD 11's headers (in the Python package {HEADERS}, 100 MB)");
    let mut pip = sh::command(python);
    pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]);
    // Any machine's package has the same headers; this one exists for sure.
    pip.args(["--only-binary=:all:", "--platform", "manylinux2010_x86_64"]);
    sh::run(pip.arg("--dest").arg(&scratch).arg(HEADERS))?;
    let wheel = fs::read_dir(&scratch)
        .map_err(|e| format!("{}: {e}", scratch.display()))?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("ziglang-") && name.ends_with(".whl")
        })
        .ok_or_else(|| format!("pip has put no package into {}", scratch.display()))?;
    let mut unpack = sh::command("python3");
    unpack.arg("-c").arg(UNPACK).arg(&wheel).arg(&to).args(HEADER_DIRS);
    sh::run(&mut unpack)?;
    let _ = fs::remove_file(wheel);
    println!("setup: NetBSD's headers are in {}", to.display());
    Ok(())
}

/// A Python that has pip: the one on the path, or the system's once python3-pip is there.
fn python_with_pip() -> Result<&'static str> {
    let has_pip = |python: &str| sh::succeeds(sh::command(python).args(["-m", "pip", "--version"]));
    if let Some(python) = ["python3", "/usr/bin/python3"].into_iter().find(|p| has_pip(p)) {
        return Ok(python);
    }
    // Its own item: pip is wanted only while the headers are missing.
    const PIP: Item =
        item(Need::Hosted, Probe::Program("pip3"), &["python3-pip"], "fetches NetBSD's headers");
    install(&[&PIP])?;
    Ok("/usr/bin/python3")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hosted_build_wants_no_second_compiler() {
        let of = |need| ITEMS.iter().filter(move |item| item.need == need);
        assert!(of(Need::Hosted).all(|item| !item.packages.contains(&"rustc-web")));
        assert!(of(Need::Kernel).any(|item| item.packages.contains(&"rust-web-src")));
        for need in Need::ALL {
            assert!(of(need).count() > 0, "{}", need.name());
        }
    }

    #[test]
    fn a_wrong_need_is_an_error() {
        assert!(main(&["hostde".into()]).unwrap_err().contains("hostde"));
    }

    #[test]
    fn programs_are_looked_for() {
        assert!(Probe::Program("sh").found());
        assert!(!Probe::Program("no-such-program-anywhere").found());
    }
}
