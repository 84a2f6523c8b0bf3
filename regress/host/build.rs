//! Compiles the few functions that stable Rust cannot define: those with a variable argument list.

fn main() {
    println!("cargo::rerun-if-changed=c/variadic.c");
    cc::Build::new()
        .compiler("clang")
        .file("c/variadic.c")
        .flag("-std=gnu11")
        .flag("-fno-builtin")
        .warnings(true)
        .compile("dmhostvariadic");
}
