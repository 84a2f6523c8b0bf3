// SPDX-License-Identifier: BSD-2-Clause

//! Each rule is given an object that breaks it, made by a real assembler and read by the real tools, and a similar
//! one that is allowed.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

/// The ports whose instructions are x86's.
const X86: [Arch; 2] = [Arch::Amd64, Arch::I386];

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// An object, gone with the value.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
        let _ = fs::remove_file(self.0.with_extension("s"));
    }
}

/// Assembles a text for a port.
fn assemble(arch: Arch, text: &str) -> Scratch {
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("xtask-check-{}-{number}.o", std::process::id());
    let object = Scratch(std::env::temp_dir().join(name));
    let source = object.0.with_extension("s");
    fs::write(&source, format!("{text}\n")).unwrap();
    let target = match arch {
        Arch::Amd64 => "--target=x86_64-unknown-netbsd",
        Arch::I386 => "--target=i586-unknown-netbsdelf",
        Arch::Aarch64 => "--target=aarch64-unknown-netbsd",
    };
    let mut clang = sh::command("clang");
    sh::run(clang.args([target, "-c", "-o"]).arg(&object.0).arg(&source)).unwrap();
    object
}

fn judged(arch: Arch, text: &str) -> Vec<String> {
    Object::read(arch, &assemble(arch, text).0).unwrap().judge(arch)
}

/// A function of these instructions.
fn function(body: &str) -> String {
    format!(".text\n.globl f\n.type f,@function\nf:\n{body}\nret\n")
}

/// The one thing wrong with the text is this.
fn only(arch: Arch, text: &str, what: &str) {
    let wrong = judged(arch, text);
    assert!(
        matches!(wrong.as_slice(), [one] if one.contains(what)),
        "{}: of `{text}` was said {wrong:?}, not `{what}`",
        arch.name()
    );
}

fn fine(arch: Arch, text: &str) {
    let wrong = judged(arch, text);
    assert!(wrong.is_empty(), "{}: of `{text}` was said {wrong:?}", arch.name());
}

#[test]
fn vector_and_floating_point_instructions() {
    for arch in X86 {
        for body in ["movd %xmm0, %eax", "pxor %mm1, %mm1"] {
            only(arch, &function(body), "vector register");
        }
        for body in ["fld1\nfstp %st(0)", "fninit\nfwait"] {
            let wrong = judged(arch, &function(body));
            assert_eq!(wrong.len(), 2, "{wrong:?}");
            assert!(wrong.iter().all(|w| w.contains("x87")), "{wrong:?}");
        }
        only(arch, &function("emms"), "vector unit");
        only(arch, &function("ldmxcsr 8(%eax)"), "vector unit");
        fine(arch, &function("mov %fs:4, %eax\nlock incl 4(%eax)\nrep movsb"));
    }
    only(Arch::Amd64, &function("vmovdqu (%rax), %ymm3"), "vector register");
}

#[test]
fn what_an_aarch64_kernel_does_not_run() {
    let arch = Arch::Aarch64;
    for body in ["fmov d0, x1", "ldr q7, [x0]", "add v0.4s, v1.4s, v2.4s", "str s1, [sp, #16]"] {
        only(arch, &function(body), "vector register");
    }
    let newer = ".arch armv8.3-a+lse+pauth\n";
    for body in ["casal w0, w1, [x2]", "ldaddal x0, x1, [x2]", "swpal w0, w1, [x2]", "retaa"] {
        only(arch, &(newer.to_string() + &function(body)), "unknown to ARMv8.0");
    }
    only(arch, &function(".long 0xffffffff"), "cannot be read");
    let plain = "bti c\npaciasp\nautiasp\nldaxr w0, [x1]\nstlxr w2, w0, [x1]\nrev x0, x1\nb f";
    fine(arch, &(newer.to_string() + &function(plain)));
    // An address of two digits looks like a register.
    fine(arch, &function(&("nop\n".repeat(53) + "b 1f\nnop\n1:")));
}

#[test]
fn stack_of_aarch64() {
    let arch = Arch::Aarch64;
    only(arch, &function("str x0, [sp, #-8]"), "below the stack pointer");
    fine(arch, &function("stp x29, x30, [sp, #-16]!\nldp x29, x30, [sp], #16"));
    for (body, said) in [
        ("sub sp, sp, #1040", "a stack frame of 1040 bytes"),
        ("stp x29, x30, [sp, #-512]!\nsub sp, sp, #528", "a stack frame of 1040 bytes"),
        ("sub sp, sp, #1, lsl #12", "a stack frame of 4096 bytes"),
        ("sub sp, sp, x1", "no fixed size"),
    ] {
        only(arch, &function(body), said);
    }
    let branch = "sub sp, sp, #1008\nadd sp, sp, #1008\nret\nstr x0, [sp, #-32]!";
    only(arch, &function(branch), "a stack frame of 1040 bytes");
    fine(arch, &function("sub sp, sp, #1008\nadd sp, sp, #1008\nstr x0, [sp, #-32]!"));
}

#[test]
fn landing_pads() {
    let exports = BTreeSet::from(["f"]);
    let judge = |body: &str| {
        let text = format!(".arch armv8.5-a\n{}", function(body));
        let object = Object::read(Arch::Aarch64, &assemble(Arch::Aarch64, &text).0).unwrap();
        rules::landing_pads(&object.code, Arch::Aarch64, &exports)
    };
    for pad in ["bti c", "bti jc", "paciasp\nautiasp"] {
        assert_eq!(judge(pad), [""; 0]);
    }
    for none in ["nop", "bti j", "mov x0, x1\nbti c"] {
        assert_eq!(judge(none).len(), 1, "{none}");
    }
}

#[test]
fn instructions_newer_than_the_pentium() {
    for body in ["cmovne %eax, %ecx", "mfence", "nopl 4(%eax)"] {
        only(Arch::I386, &function(body), "unknown to a Pentium");
        fine(Arch::Amd64, &function(body));
    }
    fine(Arch::I386, &function("lock cmpxchg8b (%esi)\nlock orl $0, (%esp)"));
}

#[test]
fn red_zone() {
    for body in ["mov %rax, -8(%rsp)", "mov -0x80(%rsp,%rcx,4), %rax", "lock orl $0, -4(%rsp)"] {
        only(Arch::Amd64, &function(body), "below the stack pointer");
    }
    only(Arch::I386, &function("mov %eax, -4(%esp)"), "below the stack pointer");
    fine(Arch::Amd64, &function("mov %rax, -8(%rbp)\nmov 8(%rsp), %rax\nlea -8(%rsp), %rsp"));
}

#[test]
fn stack_frames() {
    for (arch, sp, bp) in [(Arch::Amd64, "%rsp", "%rbp"), (Arch::I386, "%esp", "%ebp")] {
        for down in [format!("sub $1032, {sp}"), format!("lea -1032({sp}), {sp}")] {
            only(arch, &function(&down), "a stack frame of 1032 bytes");
        }
        only(arch, &function(&format!("add $-2048, {sp}")), "a stack frame of 2048 bytes");
        only(arch, &function(&format!("push {bp}\nsub $1022, {sp}")), "a stack frame of 10");
        only(arch, &function(&format!("sub {bp}, {sp}")), "no fixed size");
        // Code behind a return belongs to a branch, where the frame is still there.
        let branch = format!("sub $1000, {sp}\nadd $1000, {sp}\nret\npush {bp}\n");
        fine(arch, &function(&branch));
        let branch = branch + &format!("push {bp}\n").repeat(8);
        assert_eq!(judged(arch, &function(&branch)).len(), 1);
        fine(arch, &function(&format!("push {bp}\nsub $800, {sp}\nsub $-128, {sp}\npop {bp}")));
    }
}

#[test]
fn relocations() {
    only(Arch::Amd64, &function("mov x@GOTPCREL(%rip), %rax"), "GOTPCREL");
    only(Arch::I386, &function("mov x@GOT(%ebx), %eax"), "R_386_GOT32");
    only(Arch::I386, &function("call x@PLT"), "R_386_PLT32");
    fine(Arch::Amd64, &function("call x\nmov $x, %rax\nmovabs $x, %rax"));
    fine(Arch::I386, &function("call x\nmov $x, %eax"));
    let arm = Arch::Aarch64;
    only(arm, &function("adrp x0, :got:x\nldr x1, [x1]"), "GOT_PAGE");
    only(arm, &function("adr x0, x"), "R_AARCH64_ADR_PREL_LO");
    only(arm, &function("cbz x0, x"), "R_AARCH64_CONDBR19");
    fine(arm, &function("adrp x0, x\nadd x0, x0, :lo12:x\nldr x0, [x0, :lo12:x]\nbl x\nb x"));
}

#[test]
fn calls_made_plain() {
    let object = assemble(Arch::I386, &function("call x@PLT"));
    crate::elf::plain_calls(&object.0).unwrap();
    assert_eq!(Object::read(Arch::I386, &object.0).unwrap().judge(Arch::I386), [""; 0]);
}

#[test]
fn section_names() {
    for arch in Arch::ALL {
        let with = |name: &str, flags: &str| {
            format!("{}.section {name},\"{flags}\",@progbits\n.long 1\n", function("nop"))
        };
        only(arch, &with(".eh_frame", "a"), "unwinding");
        only(arch, &with(".init_array", "aw"), "nobody would call");
        only(arch, &with(".ctors", "aw"), "nobody would call");
        only(arch, &with(".tdata", "awT"), "thread");
        only(arch, &with(".tbss.x", "awT"), "thread");
        only(arch, &with(".got", "aw"), "dynamic linker");
        only(arch, &with(".llvmbc", "e"), "left for itself");
        only(arch, &with(".data.foo", "aw"), "link script");
        fine(arch, &with(".data", "aw"));
        fine(arch, &with(".debug_line", ""));
        fine(arch, &(function("nop") + ".cfi_sections .debug_frame\n"));
    }
    let unwound = function(".cfi_startproc\nnop") + ".cfi_endproc\n";
    only(Arch::Amd64, &unwound, "unwinding");
}

#[test]
fn text_budget() {
    let fill = |bytes: u64| format!("{}.section .rodata\n.zero {bytes}\n", function("nop"));
    let code = 2;
    fine(Arch::Amd64, &fill(BUDGET - code));
    only(Arch::Amd64, &fill(BUDGET - code + 1), "are allowed");
}

#[test]
fn an_object_without_code_is_not_praised() {
    only(Arch::Amd64, ".data\n.long 1\n", "no instruction");
}

#[test]
fn names_given_and_wanted() {
    let text = function("call kmem_alloc\ncall printf") + ".globl g\ng: .weak w\nnop\ncall w\n";
    let object = Object::read(Arch::Amd64, &assemble(Arch::Amd64, &text).0).unwrap();
    assert_eq!(object.undefined(), BTreeSet::from(["kmem_alloc", "printf", "w"]));
    assert_eq!(object.exported(), BTreeSet::from(["f", "g"]));
    let known = BTreeSet::from(["kmem_alloc", "w"]);
    let wrong = rules::undefined(&object.undefined(), &known);
    assert!(matches!(wrong.as_slice(), [one] if one.contains("printf")), "{wrong:?}");
    let wrong = rules::exported(&object.exported(), &BTreeSet::from(["f"]));
    assert!(matches!(wrong.as_slice(), [one] if one.contains("exports g")), "{wrong:?}");
}

#[test]
fn names_of_the_c_side() {
    assert!(rules::is_shims("dm_shim_panic") && rules::is_shims("dm_cdevsw"));
    assert!(!rules::is_shims("dmattach2") && !rules::is_shims("printf"));
}

#[test]
fn modules_declare_themselves_once() {
    for (arch, pointer) in [(Arch::Amd64, ".quad"), (Arch::I386, ".long"), (Arch::Aarch64, ".quad")]
    {
        let with = |count: usize| {
            let set = ".section link_set_modules,\"a\",@progbits\n".to_string();
            assemble(arch, &(function("nop") + &set + &format!("{pointer} f\n").repeat(count)))
        };
        is_one_module(arch, &with(1).0).unwrap();
        for wrong in [0, 2] {
            assert!(is_one_module(arch, &with(wrong).0).unwrap_err().contains("once"));
        }
    }
}

/// Every listed name stands once, with the file where NetBSD has it.
#[test]
fn the_lists_are_whole() {
    let conf = sh::root().join("conf");
    let text = sh::read(&conf.join("kernel-symbols")).unwrap();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (name, place) = line.split_once(' ').unwrap_or((line, ""));
        let file = place.split([',', ' ', ':']).any(|w| w.ends_with(".c") || w.ends_with(".S"));
        assert!(file, "{name} is listed without its file");
    }
    for file in ["kernel-symbols", "exports"] {
        let names = sh::list(&conf.join(file)).unwrap();
        let once: BTreeSet<_> = names.iter().collect();
        assert_eq!(once.len(), names.len(), "conf/{file} has a name twice");
        assert!(names.len() > 10, "conf/{file}");
    }
}
