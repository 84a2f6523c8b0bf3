// SPDX-License-Identifier: BSD-2-Clause

//! Binds the driver to one NetBSD release: runs bindgen over that release's headers, turns what the
//! driver uses of it into C assertions (`build/layout.rs`), and (hosted) compiles the shim with them.
//!
//! Headers come from the NetBSD source tree that `NETBSDSRCDIR` names, else from the set that
//! `cargo xtask setup` unpacked (NetBSD 11) with the stand-ins of `sys/netbsd/include`.

use std::path::{Path, PathBuf};
use std::{env, fs};

#[path = "build/layout.rs"]
mod layout;

/// Structures whose size and fields the Rust side relies on.
const TYPES: &[&str] = &[
    "buf",
    "bdevsw",
    "cdevsw",
    "callout",
    "cfattach",
    "cfdata",
    "cfdriver",
    "dev_t",
    "device_t",
    "disk",
    "disk_geom",
    "disk_sectoralign",
    "disk_strategy",
    "disklabel",
    "dkdriver",
    "dkwedge_info",
    "dkwedge_list",
    "io_stats",
    "iovec",
    "kauth_cred_t",
    "kcondvar_t",
    "kmutex_t",
    "MD5_CTX",
    "modinfo",
    "partinfo",
    "plistref",
    "pool_cache_t",
    "prop_.*",
    "RMD160_CTX",
    "SHA.*_CTX",
    "sysctlnode",
    "timeval",
    "uio",
    "vnode",
    "vop_.*_args",
];

/// Kernel functions the driver or the hosted kernel names. None that does not return: `dm_layout.h`
/// would compare it with its prototype, which is another for gcc.
const FUNCTIONS: &[&str] = &[
    "aprint_.*",
    "bdev_.*",
    "bdevsw_.*",
    "bdevvp",
    "biodone",
    "biowait",
    "bounds_check_.*",
    "buf_destroy",
    "buf_init",
    "callout_.*",
    "cdev_.*",
    "cdevsw_.*",
    "config_.*",
    "copyin",
    "copyout",
    "cpu_index",
    "cpu_intr_p",
    "cpu_softintr_p",
    "cv_.*",
    "dev_minor_hash",
    "device_.*",
    "devsw_.*",
    "disk_.*",
    "dkwedge_.*",
    "getdisksize",
    "getiobuf",
    "getmicrouptime",
    "getticks",
    "iostat_.*",
    "kauth_.*",
    "kmem_.*",
    "kpause",
    "kthread_join",
    "MD5(Init|Update|Final)",
    "minphys",
    "mountlist_iterator_.*",
    "mutex_.*",
    "namei_simple_kernel",
    "nestiobuf_.*",
    "physio",
    "pmf_device_.*",
    "pool_cache_.*",
    "prop_.*",
    "putiobuf",
    "readdisklabel",
    "RMD160(Init|Update|Final)",
    "SHA1(Init|Update|Final)",
    "SHA[0-9]+_(Init|Update|Final)",
    "setdisklabel",
    "spec_node_getmountedfs",
    "sysctl_.*",
    "uiomove",
    "vdead_check",
    "vfinddev",
    "vfs_re(f|le|sume)",
    "vfs_suspend",
    "vn_close",
    "vn_lock",
    "vput",
    "vref",
    "vrele",
    "vrele_flush",
    "writedisklabel",
    "VFS_SYNC",
    "VOP_.*",
];

const VARS: &[&str] = &[
    "B_.*",
    "BC_.*",
    "BO_.*",
    "BPRIO_.*",
    "DETACH_.*",
    "DEV_BSIZE",
    "DIOC.*",
    "DKW_.*",
    "DT_.*",
    "DVF_.*",
    "D_.*",
    "E[A-Z0-9]+",
    "FREAD",
    "FWRITE",
    "FS_.*",
    "FSTATE_.*",
    "IPL_.*",
    "KM_.*",
    "LABELOFFSET",
    "LABELSECTOR",
    "LABELUSESMBR",
    "LK_.*",
    "MAXPARTITIONS",
    "MAXPATHLEN",
    "MAXPHYS",
    "MODULE_.*",
    "NETBSD_DM_IOCTL",
    "ODIOC.*",
    "PMFE_.*",
    "PR_NOWAIT",
    "PR_WAITOK",
    "RAW_PART",
    "S_IFBLK",
    "S_IFCHR",
    "S_IFMT",
    "DISKMAGIC",
    "DKCACHE_.*",
    "CALLOUT_MPSAFE",
    "PATH_MAX",
    "prop_.*",
    "DKTYPE_.*",
    "dm_shim_.*",
    "(MD5|RMD160|SHA1|SHA[0-9]+)_(DIGEST|BLOCK)_LENGTH",
    "DM_AES_.*",
    "BLKDEV_IOSIZE",
    "MNT_(ASYNC|RDONLY|WAIT)",
    "MUTEX_DEFAULT",
];

/// Never looked into from Rust: their size depends on kernel options.
const OPAQUE: &[&str] = &["cpu_info", "cpu_data", "lwp", "proc", "mount", "device", "vmspace"];

struct Port {
    flags: Vec<String>,
}

fn main() {
    println!("cargo::rerun-if-changed=sys/netbsd/netbsd.h");
    println!("cargo::rerun-if-changed=sys/netbsd/shim.c");
    println!("cargo::rerun-if-changed=sys/netbsd/shim.h");
    println!("cargo::rerun-if-changed=sys/netbsd/ciphers.h");
    println!("cargo::rerun-if-changed=sys/netbsd/include");
    println!("cargo::rerun-if-changed=sys/netbsd/include-aarch64");
    println!("cargo::rerun-if-env-changed=NETBSDSRCDIR");
    println!("cargo::rerun-if-env-changed=DM_NETBSD_HEADERS");
    println!("cargo::rustc-check-cfg=cfg(loom)");

    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let port = port(&root);

    let bindings = bindings(&root, &out, &port.flags);
    fs::write(out.join("netbsd.rs"), &bindings).expect("OUT_DIR is writable");
    let errnos = root.join("sys/dev/dm/errno.rs");
    println!("cargo::rerun-if-changed={}", errnos.display());
    let errnos = fs::read_to_string(&errnos).expect("the table of error numbers");
    let layout = layout::header(&bindings, &sources(&root), &errnos, OPAQUE);
    fs::write(out.join("dm_layout.h"), layout).expect("OUT_DIR is writable");
    println!("cargo::metadata=out={}", out.display());

    if env::var_os("CARGO_FEATURE_HOSTED").is_some() {
        let mut shim = cc::Build::new();
        shim.compiler("clang").no_default_flags(true).file("sys/netbsd/shim.c");
        shim.include(&out);
        for flag in &port.flags {
            shim.flag(flag);
        }
        shim.flag("-O2")
            .flag("-fPIC")
            .flag("-g")
            .flag("-Wall")
            .flag("-Werror=implicit-function-declaration");
        // Warnings about NetBSD's headers are not ours to mend.
        shim.flag("-Wno-unused-function").flag("-DDM_HOSTED");
        shim.compile("dmshim");
    }
}

/// The flags of the port that is being built: a NetBSD kernel's, or for a hosted build those of
/// the amd64 port, whose structures a Linux process on x86_64 can hold as they are.
fn port(root: &Path) -> Port {
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets it");
    // The target, the folder under sys/arch, the bundled headers' folder, the port's own flags.
    let (target, machine, zig, own) = match arch.as_str() {
        "x86_64" => (
            "x86_64-unknown-netbsd",
            "amd64",
            "x86_64-netbsd-none",
            "-Damd64 -Dx86_64 -mno-red-zone -mno-mmx -mno-sse -mno-avx -msoft-float",
        ),
        "x86" => (
            "i486-unknown-netbsdelf",
            "i386",
            "x86-netbsd-none",
            "-Di386 -mno-mmx -mno-sse -mno-avx -msoft-float",
        ),
        "aarch64" => (
            "aarch64-unknown-netbsd",
            "evbarm",
            "aarch64-netbsd-none",
            "-march=armv8-a+nofp+nosimd -mno-outline-atomics",
        ),
        other => panic!("no NetBSD port for {other} yet: share/doc/porting.md says what it takes"),
    };
    let mut flags: Vec<String> = vec![format!("--target={target}")];
    let all = "-DMULTIPROCESSOR -DMAXUSERS=64 -D_KERNEL -D_MODULE -std=gnu99 -ffreestanding \
               -fno-strict-aliasing -fno-common -nostdinc";
    flags.extend(own.split_whitespace().chain(all.split_whitespace()).map(String::from));
    if let Some(src) = env::var_os("NETBSDSRCDIR") {
        let src = PathBuf::from(src);
        let links =
            PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("machine-links");
        link_machine(&src, machine, &links);
        for dir in [links, src.join("sys"), src.join("common/include"), src.join("sys/../include")]
        {
            flags.push(format!("-I{}", dir.display()));
        }
    } else {
        let headers = env::var_os("DM_NETBSD_HEADERS")
            .map_or_else(|| root.join("target/netbsd-headers"), PathBuf::from);
        if !headers.join("generic-netbsd/sys/param.h").exists() {
            panic!(
                "no NetBSD headers in {}: run `cargo xtask setup`, or name a NetBSD source tree \
                 with NETBSDSRCDIR",
                headers.display()
            );
        }
        // The bundled set has lost its version number.
        flags.push("-D__NetBSD_Version__=1100000000".into());
        if machine == "evbarm" {
            // Before the others, which are x86's where ports differ.
            flags.push(format!("-I{}", root.join("sys/netbsd/include-aarch64").display()));
        }
        flags.push(format!("-I{}", root.join("sys/netbsd/include").display()));
        for dir in [zig, "generic-netbsd"] {
            flags.push("-isystem".into());
            flags.push(headers.join(dir).display().to_string());
        }
    }
    Port { flags }
}

/// A source tree has no `machine/`; config(1) makes these links in a kernel's build directory.
fn link_machine(src: &Path, machine: &str, links: &Path) {
    fs::create_dir_all(links).expect("OUT_DIR is writable");
    let arch = src.join("sys/arch");
    let others: &[&str] = if machine == "evbarm" { &["aarch64", "arm"] } else { &["x86", "i386"] };
    let others = others.iter().map(|name| (*name, *name));
    for (name, to) in [("machine", machine), (machine, machine)].into_iter().chain(others) {
        let link = links.join(name);
        let _ = fs::remove_file(&link);
        std::os::unix::fs::symlink(arch.join(to).join("include"), &link)
            .unwrap_or_else(|e| panic!("{}: {e}", link.display()));
    }
}

fn bindings(root: &Path, out: &Path, flags: &[String]) -> String {
    let mut builder = bindgen::Builder::default()
        .header(root.join("sys/netbsd/netbsd.h").display().to_string())
        .header(root.join("sys/netbsd/shim.h").display().to_string())
        .clang_args(flags)
        .clang_arg("-DDM_BINDGEN")
        // A header that changes makes new bindings.
        .parse_callbacks(Box::new(bindgen::CargoCallbacks::new()))
        .clang_macro_fallback()
        .clang_macro_fallback_build_dir(out)
        .use_core()
        .ctypes_prefix("core::ffi")
        .allowlist_function("dm_shim_.*")
        .default_macro_constant_type(bindgen::MacroTypeVariation::Signed)
        .derive_debug(false)
        .generate_comments(false)
        .layout_tests(true)
        .formatter(bindgen::Formatter::Prettyplease)
        .rust_edition(bindgen::RustEdition::Edition2024)
        .wrap_unsafe_ops(true);
    for ty in TYPES {
        builder = builder.allowlist_type(ty);
    }
    for function in FUNCTIONS {
        builder = builder.allowlist_function(function);
    }
    for var in VARS {
        builder = builder.allowlist_var(var);
    }
    // The hosted kernel makes mounts, and looks into them.
    for ty in OPAQUE.iter().filter(|ty| **ty != "mount") {
        builder = builder.opaque_type(ty);
    }
    // libclang evaluates the ioctl's macros by way of a precompiled header in OUT_DIR, and when
    // that fails, which has been seen on a crowded machine, bindgen leaves them out in silence.
    for _ in 0..3 {
        let bindings = builder
            .clone()
            .generate()
            .unwrap_or_else(|e| panic!("bindgen could not read NetBSD's headers: {e}"))
            .to_string();
        if bindings.contains("pub const NETBSD_DM_IOCTL:") {
            return bindings;
        }
    }
    panic!("libclang did not evaluate the macros of NetBSD's headers, three times");
}

/// The text of all sources of the driver that name what is NetBSD's.
fn sources(root: &Path) -> String {
    let mut text = String::new();
    let mut left = vec![root.join("sys/netbsd"), root.join("sys/entry")];
    while let Some(folder) = left.pop() {
        println!("cargo::rerun-if-changed={}", folder.display());
        let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.sort();
        for path in paths {
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let read = fs::read_to_string(&path);
                text += &read.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            }
        }
    }
    text
}
