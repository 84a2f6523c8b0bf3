// SPDX-License-Identifier: BSD-2-Clause

//! Compiles the few functions that stable Rust cannot define: those with a variable argument list.

fn main() {
    println!("cargo::rerun-if-changed=c");
    // The kernel finds its modules in a section that nothing refers to but its two ends.
    println!("cargo::rustc-link-arg=-Wl,-z,nostart-stop-gc");
    cc::Build::new()
        .compiler("clang")
        .file("c/variadic.c")
        .file("c/absent.c")
        .flag("-std=gnu11")
        .flag("-fno-builtin")
        .warnings(true)
        .compile("dmhostvariadic");
}
