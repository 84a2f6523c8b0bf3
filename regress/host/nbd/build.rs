//! How the plugin is linked.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // The hosted kernel has functions whose names a process may have, too: inside the plugin its
    // own are meant.
    println!("cargo::rustc-link-arg-cdylib=-Wl,-Bsymbolic");
    // The kernel finds its modules in a section that nothing refers to but its two ends.
    println!("cargo::rustc-link-arg-cdylib=-Wl,-z,nostart-stop-gc");
}
