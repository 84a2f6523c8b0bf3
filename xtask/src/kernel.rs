// SPDX-License-Identifier: BSD-2-Clause

//! `cargo xtask kernel`: the driver as one relocatable object that a NetBSD kernel links.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::{env, fs};

use crate::setup::{self, Need};
use crate::sh::{self, Result};
use crate::{elf, toolchain};

/// A NetBSD port that the driver is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    /// x86_64.
    Amd64,
    /// 32-bit x86, from the Pentium on.
    I386,
    /// evbarm on 64-bit Arm, from ARMv8.0 on, little-endian.
    Aarch64,
}

impl Arch {
    /// All ports.
    pub const ALL: [Arch; 3] = [Arch::Amd64, Arch::I386, Arch::Aarch64];

    /// NetBSD's name of the port; evbarm's is that of its processor.
    pub fn name(self) -> &'static str {
        match self {
            Arch::Amd64 => "amd64",
            Arch::I386 => "i386",
            Arch::Aarch64 => "aarch64",
        }
    }

    /// A tool of binutils that knows the port's instructions.
    pub fn tool(self, name: &str) -> String {
        match self {
            Arch::Amd64 | Arch::I386 => name.into(),
            Arch::Aarch64 => format!("aarch64-linux-gnu-{name}"),
        }
    }

    /// Bytes in a pointer.
    pub fn pointer(self) -> u64 {
        match self {
            Arch::Amd64 | Arch::Aarch64 => 8,
            Arch::I386 => 4,
        }
    }

    /// The name of the port's kind of object for ld(1).
    pub fn emulation(self) -> &'static str {
        match self {
            Arch::Amd64 => "elf_x86_64",
            Arch::I386 => "elf_i386",
            Arch::Aarch64 => "aarch64elf",
        }
    }

    /// The port of that name.
    pub fn parse(name: &str) -> Result<Arch> {
        match name {
            "amd64" | "x86_64" => Ok(Arch::Amd64),
            "i386" => Ok(Arch::I386),
            "aarch64" | "evbarm" => Ok(Arch::Aarch64),
            _ => Err(format!("no port called `{name}`: there are amd64, i386 and aarch64")),
        }
    }
}

/// The options of `kernel` and `kmod`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The ports.
    pub arches: Vec<Arch>,
    /// The NetBSD source tree whose kernel it is for; without one, the bundled headers' release.
    pub src: Option<PathBuf>,
    /// The folder of the results, instead of target/kernel.
    pub out: Option<PathBuf>,
    /// `true` if line numbers are kept, for a kernel that is built with `-g`.
    pub debug: bool,
    /// `true` if the object has the driver's debug assertions, for a kernel with DIAGNOSTIC.
    pub diagnostic: bool,
}

impl Options {
    /// Reads the arguments of `kernel` and `kmod`.
    pub fn parse(args: &[String]) -> Result<Options> {
        let src = env::var_os("NETBSDSRCDIR").map(PathBuf::from);
        let (arches, out) = (Vec::new(), None);
        let mut options = Options { arches, src, out, debug: false, diagnostic: false };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let (name, mut value) = match arg.split_once('=') {
                Some((name, value)) => (name, Some(value.to_string())),
                None => (arg.as_str(), None),
            };
            let mut value = || {
                value
                    .take()
                    .or_else(|| args.next().cloned())
                    .ok_or_else(|| format!("{name} wants a value"))
            };
            match name {
                "--arch" => options.arches.push(Arch::parse(&value()?)?),
                "--src" => options.src = Some(PathBuf::from(value()?)),
                "--out" => options.out = Some(PathBuf::from(value()?)),
                "--debug" => options.debug = true,
                "--diagnostic" => options.diagnostic = true,
                _ => return Err(format!("no option `{arg}`: see `cargo xtask help`")),
            }
        }
        if options.arches.is_empty() {
            options.arches = Arch::ALL.to_vec();
        }
        if let Some(src) = &mut options.src {
            *src = fs::canonicalize(&*src).map_err(|e| format!("{}: {e}", src.display()))?;
            if !src.join("sys/sys/param.h").is_file() {
                return Err(format!(
                    "{} is no NetBSD source tree: it has no sys/sys/param.h",
                    src.display()
                ));
            }
            if !src.join("common/include/prop/proplib.h").is_file() {
                return Err(format!(
                    "{} lacks common/include/prop/proplib.h: a kernel needs the tree's common/ beside its sys/",
                    src.display()
                ));
            }
        }
        Ok(options)
    }

    /// The folder of a port's results.
    pub fn dir(&self, arch: Arch) -> PathBuf {
        self.out.clone().unwrap_or_else(|| sh::target_dir().join("kernel")).join(arch.name())
    }

    /// The release that the headers are of, for people.
    pub fn release(&self) -> Result<String> {
        match &self.src {
            None => Ok("NetBSD 11 (the bundled headers)".into()),
            Some(src) => {
                let version = version(&sh::read(&src.join("sys/sys/param.h"))?)
                    .unwrap_or_else(|| "of unknown version".into());
                Ok(format!("NetBSD {version} ({})", src.display()))
            }
        }
    }
}

/// `__NetBSD_Version__` of a sys/param.h as NetBSD writes it: 1099001200 is 10.99.12.
fn version(param_h: &str) -> Option<String> {
    let line = param_h.lines().find(|line| {
        line.starts_with("#define") && line.split_whitespace().nth(1) == Some("__NetBSD_Version__")
    })?;
    let number: u64 = line.split_whitespace().nth(2)?.parse().ok()?;
    let (major, minor, patch) =
        (number / 100_000_000, number / 1_000_000 % 100, number / 100 % 10_000);
    Some(if minor == 99 { format!("{major}.{minor}.{patch}") } else { format!("{major}.{minor}") })
}

/// The results of one build.
#[derive(Clone, Debug)]
pub struct Made {
    /// The port.
    pub arch: Arch,
    /// The folder of the results.
    pub dir: PathBuf,
    /// The links of a kernel's build directory (`machine`), if bound to a source tree.
    pub links: PathBuf,
}

impl Made {
    /// The path of the object.
    pub fn object(&self) -> PathBuf {
        self.dir.join("rustdm.o")
    }
}

/// `cargo xtask kernel`.
pub fn main(args: &[String]) -> Result<()> {
    let options = Options::parse(args)?;
    for arch in options.arches.clone() {
        let made = build(arch, &options)?;
        println!(
            "{} is for {} kernels of {}.\nIn a kernel configuration (RUSTDM.{} there is a whole \
             one):\n\n\tprefix \"{}\"\n\tinclude \"files.rustdm\"\n\tprefix\n\tselect rustdm",
            made.object().display(),
            arch.name(),
            options.release()?,
            arch.name(),
            made.dir.display(),
        );
    }
    Ok(())
}

/// Builds the object of a port, and puts beside it the sources that the kernel's own make compiles.
pub fn build(arch: Arch, options: &Options) -> Result<Made> {
    setup::ensure(&[Need::Kernel])?;
    let name = arch.name();
    sh::heading(&format!("rustdm.o for {name}, {}", options.release()?));
    let (archive, out_dir) = compile(name, options)?;

    let dir = options.dir(arch);
    sh::mkdir(&dir)?;
    let object = dir.join("rustdm.o");
    link(arch, &archive, &object)?;
    trim(arch, &object, options.debug)?;

    // All that the C side includes stands beside it: the kernel's make knows no folder of ours.
    let root = sh::root();
    sh::copy(&out_dir.join("dm_layout.h"), &dir.join("dm_layout.h"))?;
    for file in
        ["sys/netbsd/shim.c", "sys/netbsd/shim.h", "sys/netbsd/ciphers.h", "sys/netbsd/netbsd.h"]
    {
        let to = Path::new(file).file_name().unwrap_or_default();
        sh::copy(&root.join(file), &dir.join(to))?;
    }
    for file in ["dm_pseudo.c", "files.rustdm", "files.dm", &format!("RUSTDM.{name}")] {
        let text = sh::read(&root.join("conf").join(file))?;
        sh::write(&dir.join(file), text.replace("@DIR@", &dir.display().to_string()))?;
    }
    Ok(Made { arch, dir, links: out_dir.join("machine-links") })
}

/// Compiles the driver, with `core` and `alloc`, as a static library for a target that conf/
/// specifies. Gives back the library and the folder in which build.rs left dm_layout.h.
pub fn compile(target: &str, options: &Options) -> Result<(PathBuf, PathBuf)> {
    let mut cargo = toolchain::find()?.cargo();
    cargo.args(["build", "--lib", "--package", "rustdm", "--no-default-features"]);
    cargo.args(["--profile", "kernel", "--message-format", "json-render-diagnostics"]);
    cargo.arg("--target").arg(sh::root().join(format!("conf/{target}.json")));
    cargo.args(["-Zjson-target-spec", "-Zbuild-std=core,alloc,compiler_builtins"]);
    // compiler_builtins without its feature `mem`: memcpy and friends are libkern's.
    cargo.arg("-Zbuild-std-features=");
    if target == Arch::Aarch64.name() {
        // For kernels with ARMV85_BTI and ARMV83_PAC; for others these instructions are nops.
        cargo.env("RUSTFLAGS", "-Zbranch-protection=bti,pac-ret");
    }
    if options.diagnostic {
        cargo.env("CARGO_PROFILE_KERNEL_DEBUG_ASSERTIONS", "true");
    }
    // Its own folder: another compiler's results would fight with those of the hosted build.
    cargo.arg("--target-dir").arg(sh::target_dir().join("kernel-build"));
    match &options.src {
        Some(src) => cargo.env("NETBSDSRCDIR", src),
        None => cargo.env_remove("NETBSDSRCDIR").env("DM_NETBSD_HEADERS", sh::headers_dir()),
    };
    let messages = sh::output(cargo.stderr(Stdio::inherit()))?;
    let out_dir = messages
        .lines()
        .filter(|line| line.contains(r#""reason":"build-script-executed""#))
        .filter(|line| string(line, "package_id").is_some_and(|id| is_ours(&id)))
        .find_map(|line| string(line, "out_dir"))
        .ok_or("cargo did not say where build.rs put its results")?;
    let archive = messages
        .lines()
        .filter(|line| line.contains(r#""reason":"compiler-artifact""#))
        .flat_map(|line| line.split('"'))
        .find(|word| word.ends_with("/librustdm.a"))
        .ok_or("cargo did not say where librustdm.a is")?;
    Ok((PathBuf::from(archive), PathBuf::from(out_dir)))
}

/// `true` if a cargo package id is that of the root package.
fn is_ours(id: &str) -> bool {
    id.split(['#', ' ']).any(|part| part == "rustdm" || part.starts_with("rustdm@"))
        || id.rsplit_once('#').is_some_and(|(path, version)| {
            !version.contains('@') && path == format!("path+file://{}", sh::root().display())
        })
}

/// The value of a string member in a line of JSON, as cargo prints it.
fn string(line: &str, member: &str) -> Option<String> {
    let start = line.find(&format!("\"{member}\":\""))? + member.len() + 4;
    let mut text = String::new();
    let mut chars = line.get(start..)?.chars();
    loop {
        match chars.next()? {
            '"' => return Some(text),
            '\\' => text.push(chars.next()?),
            c => text.push(c),
        }
    }
}

/// Links the code that the entry points need into one object, its sections folded.
pub fn link(arch: Arch, archive: &Path, object: &Path) -> Result<()> {
    let conf = sh::root().join("conf");
    let mut ld = sh::command(arch.tool("ld"));
    ld.args(["-m", arch.emulation(), "-r", "--gc-sections"]);
    for name in sh::list(&conf.join("exports"))? {
        ld.args(["-u", &name]);
    }
    ld.arg("-T").arg(conf.join("kernel.ld")).arg("-o").arg(object).arg(archive);
    sh::run(&mut ld)
}

/// Hides all names but the exported ones, and removes sections that a kernel does not use, with the debug information
/// unless `debug`.
pub fn trim(arch: Arch, object: &Path, debug: bool) -> Result<()> {
    let names = object.with_extension("names");
    let exports = sh::list(&sh::root().join("conf/exports"))?;
    sh::write(&names, exports.join("\n") + "\n")?;
    let mut objcopy = sh::command(arch.tool("objcopy"));
    objcopy.arg(format!("--keep-global-symbols={}", names.display()));
    for section in [".llvmbc", ".llvmcmd", ".eh_frame", ".comment"] {
        objcopy.args(["--remove-section", section]);
    }
    if !debug {
        objcopy.arg("--strip-debug");
    }
    sh::run(objcopy.arg(object))?;
    let _ = fs::remove_file(names);
    elf::plain_calls(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(String::from).collect()
    }

    #[test]
    fn a_tree_without_common_is_refused_in_words() {
        let tree = env::temp_dir().join(format!("dm-xtask-tree.{}", std::process::id()));
        fs::create_dir_all(tree.join("sys/sys")).unwrap();
        fs::write(tree.join("sys/sys/param.h"), "").unwrap();
        let error = Options::parse(&words(&format!("--src {}", tree.display()))).unwrap_err();
        fs::remove_dir_all(&tree).unwrap();
        assert!(error.contains("lacks common/include/prop/proplib.h"), "{error}");
    }

    /// dm_layout.h compares functions with their prototypes, which gcc finds to differ where the
    /// function does not return.
    #[test]
    fn no_bound_function_is_one_that_does_not_return() {
        let build = fs::read_to_string(sh::root().join("build.rs")).unwrap();
        let list = build.split("const FUNCTIONS").nth(1).unwrap().split("];").next().unwrap();
        let bound: Vec<&str> = list.split('"').skip(1).step_by(2).collect();
        assert!(bound.contains(&"kthread_join"));
        for dead in ["kern_reboot", "cpu_reboot", "kthread_exit", "panic", "vpanic", "lwp_exit"] {
            assert!(!bound.contains(&dead), "{dead}");
        }
    }

    #[test]
    fn arguments() {
        let options = Options::parse(&words("--arch i386 --out /tmp/x")).unwrap();
        assert_eq!(options.arches, [Arch::I386]);
        assert_eq!(options.dir(Arch::I386), Path::new("/tmp/x/i386"));
        assert_eq!(Options::parse(&words("--debug")).unwrap().arches, Arch::ALL);
        assert_eq!(Options::parse(&words("--arch=amd64")).unwrap().arches, [Arch::Amd64]);
        for wrong in ["--arch", "--arch vax", "--frob", "--src /nonexistent", "--src /"] {
            Options::parse(&words(wrong)).unwrap_err();
        }
    }

    #[test]
    fn release_numbers() {
        let of = |n: &str| version(&format!("#define\t__NetBSD_Version__\t{n}\t/* x */\n"));
        assert_eq!(of("1099001200").unwrap(), "10.99.12");
        assert_eq!(of("1001000000").unwrap(), "10.1");
        assert_eq!(of("1100000000").unwrap(), "11.0");
        assert_eq!(version("int x;"), None);
    }

    #[test]
    fn json_strings() {
        let line = r#"{"reason":"x","package_id":"path+file:///a/b#rustdm@0.1.0","out_dir":"/a/\"q\"/out"}"#;
        assert_eq!(string(line, "out_dir").unwrap(), "/a/\"q\"/out");
        assert!(is_ours(&string(line, "package_id").unwrap()));
        assert!(!is_ours("path+file:///a/b#dm-core@0.1.0"));
        assert!(!is_ours("registry+https://example.invalid/index#cc@1.0.0"));
        assert_eq!(string(line, "other"), None);
    }
}
