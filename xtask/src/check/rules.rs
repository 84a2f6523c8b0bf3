// SPDX-License-Identifier: BSD-2-Clause

//! The rules for a kernel's object, applied to the output of binutils.

use std::collections::BTreeSet;

use crate::kernel::Arch;

/// The instructions, by function.
#[derive(Default)]
pub struct Code {
    functions: Vec<Function>,
}

struct Function {
    name: String,
    instructions: Vec<Instruction>,
}

struct Instruction {
    mnemonic: String,
    operands: String,
}

impl Code {
    /// Reads what `objdump -d --no-show-raw-insn` prints.
    pub fn parse(disassembly: &str, arch: Arch) -> Code {
        let mut code = Code::default();
        for line in disassembly.lines() {
            if let Some(name) = line.strip_suffix(">:").and_then(|line| line.split_once('<')) {
                let (name, instructions) = (name.1.to_string(), Vec::new());
                code.functions.push(Function { name, instructions });
                continue;
            }
            let Some((_, text)) = line.split_once(":\t") else { continue };
            let text = operands_only(text, arch);
            let mut words = text.split_whitespace().peekable();
            // Prefixes come before the mnemonic.
            let prefixes = ["lock", "rep", "repz", "repnz", "data16", "cs", "ds", "es", "bnd"];
            while words.next_if(|word| prefixes.contains(word)).is_some() {}
            let Some(mnemonic) = words.next() else { continue };
            let (mnemonic, operands) = (mnemonic.to_string(), words.collect());
            if let Some(function) = code.functions.last_mut() {
                function.instructions.push(Instruction { mnemonic, operands });
            }
        }
        code
    }

    /// `true` if there is nothing to judge.
    pub fn is_empty(&self) -> bool {
        self.functions.iter().all(|function| function.instructions.is_empty())
    }

    fn each(&self) -> impl Iterator<Item = (&str, &Instruction)> {
        self.functions.iter().flat_map(|f| f.instructions.iter().map(|i| (f.name.as_str(), i)))
    }
}

/// An instruction without objdump's remarks, and without the name of an address that it prints.
fn operands_only(text: &str, arch: Arch) -> &str {
    if arch != Arch::Aarch64 {
        return text.split(['#', '<']).next().unwrap_or_default();
    }
    // A number begins with # here, a remark with //. An address before its <name> is hexadecimal without
    // 0x, and could be taken for a register.
    let text = text.split("//").next().unwrap_or_default();
    match text.split_once('<') {
        None => text,
        Some((before, _)) => {
            let before = before.trim_end();
            before.rfind([',', '\t', ' ']).and_then(|at| before.get(..at)).unwrap_or(before)
        }
    }
}

/// Instructions that a kernel may not use, since their registers are the user's; on i386
/// those that a Pentium has not, on aarch64 those that came after ARMv8.0.
pub fn instructions(code: &Code, arch: Arch) -> Vec<String> {
    let mut wrong = Vec::new();
    for (function, instruction) in code.each() {
        let Instruction { mnemonic, operands } = instruction;
        let what = if arch == Arch::Aarch64 {
            match of_aarch64(mnemonic, operands) {
                Some(what) => what,
                None => continue,
            }
        } else if operands.contains("mm") && has_vector_register(operands) {
            "uses a vector register"
        } else if operands.contains("%st") || is_x87(mnemonic) {
            "uses the x87"
        } else if ["emms", "femms", "ldmxcsr", "stmxcsr", "xsave", "xrstor", "fxsave", "fxrstor"]
            .iter()
            .any(|name| mnemonic.starts_with(name))
        {
            "touches the state of a vector unit"
        } else if mnemonic == "(bad)" {
            "cannot be read"
        } else if arch == Arch::I386 && is_after_pentium(mnemonic) {
            "is unknown to a Pentium"
        } else {
            continue;
        };
        wrong.push(format!("{function}: `{mnemonic} {operands}` {what}"));
    }
    wrong
}

fn of_aarch64(mnemonic: &str, operands: &str) -> Option<&'static str> {
    let register = |word: &str| {
        let (bank, number) = (word.get(..1).unwrap_or(""), word.get(1..).unwrap_or(""));
        "vqdshb".contains(bank) && !bank.is_empty() && number.parse::<u8>().is_ok_and(|n| n < 32)
    };
    let mut words = operands.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    // Atomic instructions of ARMv8.1, as outline atomics choose them at run time, and loads of 8.3.
    let newer =
        ["cas", "swp", "ldadd", "ldclr", "ldeor", "ldset", "ldsm", "ldum", "stadd", "stclr"];
    let newer = newer.iter().chain(&["steor", "stset", "stsm", "stum", "ldapr", "braa", "blraa"]);
    if words.any(register) {
        Some("uses a vector register")
    } else if [".inst", ".word", "udf"].contains(&mnemonic) || mnemonic.contains("undefined") {
        Some("cannot be read")
    } else if mnemonic == "retaa" || newer.clone().any(|name| mnemonic.starts_with(name)) {
        Some("is unknown to ARMv8.0")
    } else {
        None
    }
}

fn has_vector_register(operands: &str) -> bool {
    operands
        .split('%')
        .skip(1)
        .any(|name| ["mm", "xmm", "ymm", "zmm"].iter().any(|bank| name.starts_with(bank)))
}

/// `true` for an instruction of the x87: they begin with f, as no others do but those about a segment.
fn is_x87(mnemonic: &str) -> bool {
    (mnemonic.starts_with('f') && mnemonic != "fs") || mnemonic == "wait"
}

fn is_after_pentium(mnemonic: &str) -> bool {
    // Not tzcnt: it is bsf with a prefix that an older processor ignores, and the compiler writes it
    // where the operand is not 0, for which both say the same.
    ["cmov", "nopw", "nopl", "prefetch", "pause.", "sysenter", "rdrand", "popcnt", "lzcnt"]
        .iter()
        .any(|name| mnemonic.starts_with(name))
        || ["mfence", "lfence", "sfence", "clflush", "cmpxchg16b", "endbr32"].contains(&mnemonic)
}

/// The accesses below the stack pointer, where an interrupt overwrites memory.
pub fn red_zone(code: &Code, arch: Arch) -> Vec<String> {
    code.each()
        .filter(|(_, i)| {
            if arch == Arch::Aarch64 {
                // With ! the pointer moves down first.
                return i.operands.contains("[sp,#-") && !i.operands.ends_with('!');
            }
            let below = |pointer: &str| {
                i.operands.match_indices(pointer).any(|(at, _)| {
                    i.operands
                        .get(..at)
                        .and_then(|before| before.rsplit([',', ':']).next())
                        .is_some_and(|displacement| displacement.starts_with('-'))
                })
            };
            // Moving the pointer down is how a frame is made; frames() judges it.
            let moves = i.mnemonic.starts_with("lea") && i.operands.ends_with("sp");
            !moves && (below("(%rsp") || below("(%esp"))
        })
        .map(|(function, i)| {
            format!("{function}: `{} {}` is below the stack pointer", i.mnemonic, i.operands)
        })
        .collect()
}

/// Functions whose stack frame is larger than allowed, or of no fixed size.
pub fn frames(code: &Code, arch: Arch, most: u64) -> Vec<String> {
    let mut wrong = Vec::new();
    for function in &code.functions {
        match frame(function, arch) {
            None => wrong.push(format!("{}: its stack frame has no fixed size", function.name)),
            Some(size) if size > most => {
                wrong.push(format!("{}: a stack frame of {size} bytes", function.name));
            }
            Some(_) => {}
        }
    }
    wrong
}

/// The largest stack frame, in bytes.
pub fn largest_frame(code: &Code, arch: Arch) -> u64 {
    code.functions.iter().filter_map(|function| frame(function, arch)).max().unwrap_or(0)
}

/// The bytes by which a function moves the stack pointer down: pushes and what is taken at once. `None` if it moves
/// the pointer by a register.
fn frame(function: &Function, arch: Arch) -> Option<u64> {
    if arch == Arch::Aarch64 {
        return frame_of_aarch64(function);
    }
    let word = arch.pointer();
    let (mut depth, mut deepest, mut body) = (0u64, 0u64, None);
    for i in &function.instructions {
        let to_stack = i.operands.ends_with(",%rsp") || i.operands.ends_with(",%esp");
        let name = i.mnemonic.trim_end_matches(['l', 'q']);
        match name {
            "push" | "pushf" => depth += word,
            "pop" | "popf" => depth = depth.saturating_sub(word),
            "sub" | "add" if to_stack => {
                let amount = immediate(&i.operands, arch)?;
                let down = if name == "sub" { amount } else { -amount };
                depth = depth.saturating_add_signed(down);
                if down > 0 && body.is_none() {
                    body = Some(depth);
                }
            }
            "lea"
                if to_stack && (i.operands.contains("(%rsp)") || i.operands.contains("(%esp)")) =>
            {
                let displacement = i.operands.split('(').next()?;
                depth = depth.saturating_add_signed(-hexadecimal(displacement)?);
            }
            // The code that follows was reached by a jump from the body.
            "ret" | "jmp" | "ud2" => depth = depth.max(body.unwrap_or(0)),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    Some(deepest)
}

/// [`frame`] of aarch64, where the pointer moves by `sub sp, sp, #…` or with a store: `[sp, #-…]!`.
fn frame_of_aarch64(function: &Function) -> Option<u64> {
    let (mut depth, mut deepest, mut body) = (0u64, 0u64, None);
    for i in &function.instructions {
        let name = i.mnemonic.as_str();
        if (name == "sub" || name == "add") && i.operands.starts_with("sp,") {
            let (amount, shift) = match i.operands.strip_prefix("sp,sp,#")?.split_once(",lsl#") {
                Some((amount, shift)) => (amount, shift.parse().ok()?),
                None => (i.operands.strip_prefix("sp,sp,#")?, 0u32),
            };
            let amount = number(amount)?.checked_shl(shift)?;
            depth = depth.saturating_add_signed(if name == "sub" { amount } else { -amount });
        } else if let Some((_, down)) = i.operands.split_once("[sp,#-")
            && let Some(down) = down.strip_suffix("]!")
        {
            depth = depth.saturating_add_signed(number(down)?);
        } else if let Some((_, up)) = i.operands.split_once("[sp],#") {
            depth = depth.saturating_add_signed(-number(up)?);
        } else if ["ret", "b", "br", "brk"].contains(&name) {
            // The code that follows was reached by a jump from the body.
            depth = depth.max(body.unwrap_or(0));
        }
        if depth > deepest {
            body = Some(depth);
        }
        deepest = deepest.max(depth);
    }
    Some(deepest)
}

/// A number as objdump prints it in an aarch64 operand: `0x60`, `96`.
fn number(text: &str) -> Option<i64> {
    match text.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Exported functions that a kernel with ARMV85_BTI could not call through a pointer, as devsw(9) and autoconf(9)
/// do: they do not begin with `bti` or `paciasp`.
pub fn landing_pads(code: &Code, arch: Arch, exports: &BTreeSet<&str>) -> Vec<String> {
    if arch != Arch::Aarch64 {
        return Vec::new();
    }
    let lacks = |function: &&Function| {
        let first = function.instructions.first();
        !first.is_some_and(|i| i.mnemonic == "paciasp" || i.mnemonic == "bti" && i.operands != "j")
    };
    let ours = code.functions.iter().filter(|function| exports.contains(function.name.as_str()));
    ours.filter(lacks).map(|f| format!("{}: begins with no landing pad (BTI)", f.name)).collect()
}

/// The amount in `$0x18,%rsp`. objdump prints a negative one as an address, all its bits.
fn immediate(operands: &str, arch: Arch) -> Option<i64> {
    let text = operands.strip_prefix('$')?.split(',').next()?;
    if let Some(digits) = text.strip_prefix("0x") {
        let bits = u64::from_str_radix(digits, 16).ok()?;
        return Some(match arch {
            Arch::Amd64 | Arch::Aarch64 => bits.cast_signed(),
            Arch::I386 => i64::from(u32::try_from(bits).ok()?.cast_signed()),
        });
    }
    hexadecimal(text)
}

/// A displacement as objdump prints it: `-0x20`, `0x8`.
fn hexadecimal(text: &str) -> Option<i64> {
    let (sign, text) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let digits = text.strip_prefix("0x")?;
    Some(sign * i64::from_str_radix(digits, 16).ok()?)
}

/// A section of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    pub name: String,
    /// The size in bytes.
    pub size: u64,
    /// The flags, as readelf's letters: A is loaded, T is for each thread.
    pub flags: String,
}

/// Reads what `readelf -SW` prints.
pub fn sections(text: &str) -> Vec<Section> {
    let mut sections = Vec::new();
    for line in text.lines() {
        let Some((number, rest)) = line.split_once(']') else { continue };
        let number = number.trim().trim_start_matches('[').trim();
        let words: Vec<&str> = rest.split_whitespace().collect();
        // Name, type, address, offset, size, entry size, flags; section 0 has no name.
        let (true, [name, _, _, _, size, _, rest @ ..]) =
            (number.parse::<u32>().is_ok_and(|n| n > 0), words.as_slice())
        else {
            continue;
        };
        let Ok(size) = u64::from_str_radix(size, 16) else { continue };
        let flags = rest.first().filter(|word| word.chars().all(|c| c.is_ascii_alphabetic()));
        let flags = flags.map(|word| word.to_string()).unwrap_or_default();
        sections.push(Section { name: name.to_string(), size, flags });
    }
    sections
}

/// Sections that a kernel does not run, does not unwind by, or does not know.
pub fn layout(sections: &[Section]) -> Vec<String> {
    let mut wrong = Vec::new();
    for Section { name, flags, .. } in sections {
        let what = if flags.contains('T') || [".tdata", ".tbss"].iter().any(|t| name.starts_with(t))
        {
            "data of a thread: a kernel has none"
        } else if [".init_array", ".fini_array", ".preinit_array", ".ctors", ".dtors"]
            .iter()
            .any(|start| name.starts_with(start))
        {
            "functions that nobody would call"
        } else if name.starts_with(".eh_frame") || name.starts_with(".gcc_except_table") {
            "tables for unwinding, which a kernel does not do"
        } else if name.starts_with(".got") || name.starts_with(".plt") {
            "a table of the dynamic linker's"
        } else if name.starts_with(".llvm") {
            "what the compiler left for itself"
        } else if flags.contains('A') && !is_known(name) {
            "loaded, under a name that a kernel's link script does not know"
        } else {
            continue;
        };
        wrong.push(format!("section {name}: {what}"));
    }
    wrong
}

fn is_known(name: &str) -> bool {
    let known = [
        ".text",
        ".rodata",
        ".data",
        ".bss",
        ".data.read_mostly",
        ".data.cacheline_aligned",
        ".note.GNU-stack",
        // That an object has landing pads (BTI).
        ".note.gnu.property",
    ];
    known.contains(&name)
        || name.starts_with("link_set_")
        // Strings, which ld(1) merges and so keeps apart.
        || name.starts_with(".rodata.str")
}

/// The size of the code and constants that the kernel keeps, in bytes.
pub fn text_size(sections: &[Section]) -> u64 {
    let counted = |s: &&Section| s.name.starts_with(".text") || s.name.starts_with(".rodata");
    sections.iter().filter(counted).map(|s| s.size).sum()
}

/// The fault of having more code and constants than `budget` bytes.
pub fn size(sections: &[Section], budget: u64) -> Option<String> {
    let size = text_size(sections);
    (size > budget).then(|| format!("{size} bytes of code and constants: {budget} are allowed"))
}

/// Reads the kinds of relocation that `readelf -rW` prints.
pub fn relocations(text: &str) -> BTreeSet<String> {
    text.split_whitespace().filter(|word| word.starts_with("R_")).map(String::from).collect()
}

/// Relocations that kobj(9), which loads modules, does not do.
pub fn kinds(relocations: &BTreeSet<String>, arch: Arch) -> Vec<String> {
    let known: &[&str] = match arch {
        Arch::Amd64 => &[
            "R_X86_64_64",
            "R_X86_64_32",
            "R_X86_64_32S",
            "R_X86_64_PC32",
            "R_X86_64_PLT32",
            "R_X86_64_NONE",
        ],
        Arch::I386 => &["R_386_32", "R_386_PC32", "R_386_NONE"],
        Arch::Aarch64 => &[
            "R_AARCH64_ABS64",
            "R_AARCH64_ABS32",
            "R_AARCH64_ABS16",
            "R_AARCH64_PREL64",
            "R_AARCH64_PREL32",
            "R_AARCH64_PREL16",
            "R_AARCH64_ADD_ABS_LO12_NC",
            "R_AARCH64_LDST8_ABS_LO12_NC",
            "R_AARCH64_LDST16_ABS_LO12_NC",
            "R_AARCH64_LDST32_ABS_LO12_NC",
            "R_AARCH64_LDST64_ABS_LO12_NC",
            "R_AARCH64_ADR_PREL_PG_HI21",
            "R_AARCH64_JUMP26",
            "R_AARCH64_CALL26",
            "R_AARCH64_NONE",
        ],
    };
    // readelf(1) cuts names.
    const CUT: usize = 22;
    let same = |known: &str, kind: &str| {
        known == kind || kind.len() == CUT && known.get(..CUT) == Some(kind)
    };
    relocations
        .iter()
        .filter(|kind| !known.iter().any(|known| same(known, kind)))
        .map(|kind| format!("a relocation {kind}, which kobj(9) does not do"))
        .collect()
}

/// A name that an object has or wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    pub name: String,
    /// The kind, as nm(1)'s letter.
    pub kind: char,
}

impl Symbol {
    /// `true` if another object must define the symbol.
    pub fn is_undefined(&self) -> bool {
        matches!(self.kind, 'U' | 'w' | 'v')
    }

    /// `true` if other objects see the symbol.
    pub fn is_exported(&self) -> bool {
        !self.is_undefined() && (self.kind.is_ascii_uppercase() || self.kind == 'u')
    }
}

/// Reads what `nm -P` prints.
pub fn symbols(text: &str) -> Vec<Symbol> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (name, kind) = (words.next()?, words.next()?);
            Some(Symbol { name: name.to_string(), kind: kind.chars().next()? })
        })
        .collect()
}

/// Names wanted that no list has.
pub fn undefined(wanted: &BTreeSet<&str>, known: &BTreeSet<&str>) -> Vec<String> {
    wanted
        .difference(known)
        .map(|name| format!("asks for {name}, which conf/kernel-symbols does not list"))
        .collect()
}

/// Names given to the whole kernel that are not ours to give.
pub fn exported(given: &BTreeSet<&str>, ours: &BTreeSet<&str>) -> Vec<String> {
    given.difference(ours).map(|name| format!("exports {name}, which is not ours")).collect()
}

/// `true` if a name that shim.c defines is one of the driver's: dm's tables, or shim.h's functions.
pub fn is_shims(name: &str) -> bool {
    name.starts_with("dm_shim_") || ["dm_bdevsw", "dm_cdevsw", "dm_ca", "dm_cd"].contains(&name)
}

/// A module must declare itself exactly once: one pointer in the link set.
pub fn one_module(sections: &[Section], arch: Arch) -> Option<String> {
    let pointer = arch.pointer();
    let size: u64 = sections.iter().filter(|s| s.name == "link_set_modules").map(|s| s.size).sum();
    (size != pointer).then(|| {
        format!("link_set_modules has {} pointers: a module declares itself once", size / pointer)
    })
}
