// SPDX-License-Identifier: BSD-2-Clause

//! The guest: Debian's kernel package, unpacked, and an initramfs with its device-mapper modules,
//! Debian's tools, and our program that carries out scripts.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::dir;
use crate::sh::{self, Result};

/// Debian's name for the newest kernel that it has.
const KERNEL: &str = "linux-image-amd64";

/// Modules without which there is no guest.
const MODULES: &[&str] = &["virtio_pci", "9pnet_virtio", "9p", "loop", "dm_mod"];

/// Modules that are loaded where the kernel has them: targets, the modules below them, and file systems.
const MORE: &[&str] = &[
    "brd",
    "crc32c_generic",
    "libcrc32c",
    "sha256_generic",
    "sha512_generic",
    "sha1_generic",
    "xts",
    "cbc",
    "ecb",
    "essiv",
    "aes_generic",
    "crypto_null",
    "md5",
    "cryptd",
    "af_alg",
    "algif_skcipher",
    "algif_hash",
    "dm_mirror",
    "dm_snapshot",
    "dm_crypt",
    "dm_verity",
    "dm_thin_pool",
    "dm_delay",
    "dm_dust",
    "dm_flakey",
    "dm_zero",
    "dm_log_writes",
    "dm_integrity",
    "dm_raid",
    "dm_cache",
    "dm_cache_smq",
    "dm_writecache",
    "dm_clone",
    "dm_era",
    "dm_ebs",
    "dm_switch",
    "dm_unstripe",
    "ext4",
];

/// Programs for scripts that have Linux prepare or check something, where they are installed.
const TOOLS: &[&str] = &[
    "dmsetup",
    "lvm",
    "cryptsetup",
    "veritysetup",
    "integritysetup",
    "thin_check",
    "thin_dump",
    "thin_restore",
    "cache_check",
    "era_check",
    "mke2fs",
    "e2fsck",
];

/// The first program of the guest. `dm.run` on the kernel's command line names the next.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /run /tmp /share /etc/lvm
/bin/busybox --install -s /bin
export PATH=/bin:/sbin DM_DISABLE_UDEV=1
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs -o size=80% run /run
for module in $(cat /etc/modules); do modprobe "$module" || echo "no module $module"; done
case "$(cat /proc/cmdline)" in
*dm.run=bench*)
    dm-guest bench > /dev/ttyS1 2>&1
    echo end > /dev/ttyS1
    ;;
*)
    mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,cache=none share /share
    dm-guest serve /share /dev/ttyS1
    ;;
esac
poweroff -f
"#;

/// Makes the guest where it is not there yet, and gives its folder: `vmlinuz`, `initramfs.gz`.
pub fn make() -> Result<PathBuf> {
    if std::env::consts::ARCH != "x86_64" {
        return Err("the guest is made of amd64's packages".into());
    }
    let dir = dir();
    sh::mkdir(&dir)?;
    let program = build()?;
    let kernel = kernel(&dir)?;
    let guest = dir.join("guest");
    let made_of = made_of(&program, &kernel)?;
    let stamp = guest.join("made-of");
    if fs::read_to_string(&stamp).is_ok_and(|text| text == made_of) {
        return Ok(guest);
    }
    let _ = fs::remove_dir_all(&guest);
    sh::mkdir(&guest)?;
    sh::copy(&only(&kernel.join("boot"), "vmlinuz-")?, &guest.join("vmlinuz"))?;
    let root = dir.join("root");
    let _ = fs::remove_dir_all(&root);
    fill(&root, &kernel, &program)?;
    let pack = "find . | cpio --quiet -o -H newc | gzip -1 > \"$0\"";
    let mut cpio = sh::command("sh");
    cpio.args(["-c", pack]).arg(guest.join("initramfs.gz")).current_dir(&root);
    sh::run(&mut cpio)?;
    let _ = fs::remove_dir_all(&root);
    sh::write(&stamp, made_of)?;
    Ok(guest)
}

/// A description of the files that the initramfs is made of. When it differs, the initramfs is made anew.
fn made_of(program: &Path, kernel: &Path) -> Result<String> {
    let mut text = format!("{}\n{INIT}\n{MODULES:?}\n{MORE:?}\n", kernel.display());
    let tools = TOOLS.iter().filter_map(|tool| sh::find(tool));
    for file in tools.chain([program.to_path_buf()]) {
        let data = fs::metadata(&file).map_err(|e| format!("{}: {e}", file.display()))?;
        let time = data.modified().map_err(|e| format!("{}: {e}", file.display()))?;
        text.push_str(&format!("{} {} {time:?}\n", file.display(), data.len()));
    }
    Ok(text)
}

/// Builds the program that runs in the guest; it needs no libraries there.
fn build() -> Result<PathBuf> {
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    let mut cargo = sh::cargo();
    cargo.args(["build", "--quiet", "--release", "--package", "dm-guest", "--target", TARGET]);
    cargo.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", "-Ctarget-feature=+crt-static");
    cargo.env("CARGO_PROFILE_RELEASE_DEBUG", "0").env("CARGO_PROFILE_RELEASE_STRIP", "true");
    // Its own folder: other flags would have everything else of this target built again.
    let folder = dir().join("build");
    sh::run(cargo.arg("--target-dir").arg(&folder))?;
    Ok(folder.join(TARGET).join("release/dm-guest"))
}

/// Debian's kernel package, unpacked; fetched once.
fn kernel(dir: &Path) -> Result<PathBuf> {
    let kernel = dir.join("kernel");
    if kernel.is_dir() {
        return Ok(kernel);
    }
    let depends = sh::output(sh::command("apt-cache").args(["depends", KERNEL]))?;
    let package = depends
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: linux-image-"))
        .ok_or_else(|| format!("apt knows no {KERNEL}: `apt-get update` may help"))?;
    let package = format!("linux-image-{package}");
    println!("linux: fetching {package} (70 MB, once)");
    let fetched = dir.join("fetched");
    let _ = fs::remove_dir_all(&fetched);
    sh::mkdir(&fetched)?;
    let mut fetch = sh::command("apt-get");
    // Not by the user _apt, who may not write here.
    fetch.args(["-q", "-o", "APT::Sandbox::User=root", "download", &package]);
    sh::run(fetch.current_dir(&fetched))?;
    let unpacked = dir.join("kernel.new");
    let _ = fs::remove_dir_all(&unpacked);
    let archive = only(&fetched, "linux-image-")?;
    sh::run(sh::command("dpkg").arg("-x").arg(archive).arg(&unpacked))?;
    fs::rename(&unpacked, &kernel).map_err(|e| format!("{}: {e}", kernel.display()))?;
    let _ = fs::remove_dir_all(&fetched);
    Ok(kernel)
}

/// The one file in a folder whose name begins so.
fn only(dir: &Path, beginning: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let mut paths = entries.flatten().map(|entry| entry.path());
    let named = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(beginning))
    };
    paths.find(named).ok_or_else(|| format!("no {beginning}… in {}", dir.display()))
}

/// Puts everything that the guest has into a folder.
fn fill(root: &Path, kernel: &Path, program: &Path) -> Result<()> {
    for folder in ["bin", "sbin", "etc", "lib64", "dev"] {
        sh::mkdir(&root.join(folder))?;
    }
    let busybox = sh::find("busybox").ok_or("busybox is not installed")?;
    sh::copy(&busybox, &root.join("bin/busybox"))?;
    // Debian's other package of it has libraries.
    if sh::succeeds(sh::command("ldd").arg(&busybox)) {
        libraries(root, &busybox)?;
    }
    sh::copy(program, &root.join("bin/dm-guest"))?;
    for tool in TOOLS {
        if let Some(path) = sh::find(tool) {
            sh::copy(&path, &root.join("sbin").join(tool))?;
            libraries(root, &path)?;
        }
    }
    // Loaded at run time by what uses threads.
    let unwinder = Path::new("/lib/x86_64-linux-gnu/libgcc_s.so.1");
    if unwinder.exists() {
        into(root, unwinder)?;
    }
    modules(root, kernel)?;
    let init = root.join("init");
    sh::write(&init, INIT)?;
    sh::run(sh::command("chmod").arg("755").arg(&init))
}

/// Copies a file to the same place below the root.
fn into(root: &Path, path: &Path) -> Result<()> {
    let copy = root.join(path.strip_prefix("/").unwrap_or(path));
    if let Some(folder) = copy.parent() {
        sh::mkdir(folder)?;
    }
    sh::copy(path, &copy)
}

/// Copies the libraries that a program is linked with.
fn libraries(root: &Path, program: &Path) -> Result<()> {
    let text = sh::output(sh::command("ldd").arg(program)).unwrap_or_default();
    for word in text.split_whitespace().filter(|word| word.starts_with('/')) {
        into(root, Path::new(word))?;
    }
    Ok(())
}

/// Copies the modules and those that they need.
fn modules(root: &Path, kernel: &Path) -> Result<()> {
    // Newer Debians have all of /lib in /usr/lib.
    let usr = kernel.join("usr");
    let base = if kernel.join("lib/modules").is_dir() { kernel } else { &usr };
    let version = only(&base.join("lib/modules"), "")?;
    let name = version.file_name().unwrap_or_default();
    let to = root.join("lib/modules").join(name);
    let all = found_below(&version.join("kernel"))?;
    let names: Vec<String> = all.iter().map(|path| module_name(path)).collect();
    let mut wanted: Vec<&str> = Vec::new();
    for module in MODULES {
        match names.iter().any(|name| name == module) {
            true => wanted.push(module),
            // In the kernel itself, perhaps.
            false => println!("linux: the kernel has no module {module}"),
        }
    }
    wanted.extend(MORE.iter().filter(|module| names.iter().any(|name| name == *module)));
    // The dependencies of modules are found out where a package is installed: here, now.
    sh::run(sh::command("depmod").arg("-b").arg(base).arg(name))?;
    let needs = sh::read(&version.join("modules.dep"))?;
    let mut copied = BTreeSet::new();
    for line in needs.lines() {
        let (module, needs) = line.split_once(':').unwrap_or((line, ""));
        if wanted.contains(&module_name(Path::new(module)).as_str()) {
            copied.extend(needs.split_whitespace().chain([module]));
        }
    }
    for path in copied {
        let copy = to.join(path);
        sh::mkdir(copy.parent().unwrap_or(&to))?;
        sh::copy(&version.join(path), &copy)?;
    }
    for list in ["modules.order", "modules.builtin", "modules.builtin.modinfo"] {
        if version.join(list).exists() {
            sh::copy(&version.join(list), &to.join(list))?;
        }
    }
    sh::run(sh::command("depmod").arg("-b").arg(root).arg(name))?;
    sh::write(&root.join("etc/modules"), wanted.join("\n"))
}

/// A module's name, from its file's.
fn module_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.split('.').next().unwrap_or_default().replace('-', "_")
}

/// All files below a folder.
fn found_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        for entry in entries.flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                _ => found.push(entry.path()),
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn module_names() {
        assert_eq!(module_name(Path::new("kernel/drivers/md/dm-thin-pool.ko.xz")), "dm_thin_pool");
        assert_eq!(module_name(Path::new("loop.ko")), "loop");
    }
}
