// SPDX-License-Identifier: BSD-2-Clause

//! Tests that `dm_layout.h` notices a kernel in which one field of one structure lies elsewhere,
//! one structure has another size, one constant is another, or one function has another prototype.
//!
//! Each of these kernels is a block of C with the structure as the assertions have it, and one
//! thing changed; clang compiles them all at once, and must complain about each.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

const LAYOUT: &str = include_str!(concat!(env!("OUT_DIR"), "/dm_layout.h"));

/// The condition of an assertion, between two texts.
fn conditions<'t>(before: &'t str, between: &'t str) -> impl Iterator<Item = (&'t str, &'t str)> {
    LAYOUT.lines().filter_map(move |line| {
        let rest = line.strip_prefix("DM_LAYOUT(")?.strip_prefix(before)?;
        let (what, rest) = rest.split_once(between)?;
        Some((what, rest.split_once(", \"")?.0))
    })
}

/// The fields of a structure and of its parts, by where they lie in it.
#[derive(Default)]
struct Part {
    fields: BTreeMap<String, (u64, Part)>,
}

impl Part {
    fn put(&mut self, path: &str, at: u64, base: u64) {
        match path.split_once('.') {
            None => self.fields.entry(path.to_owned()).or_default().0 = at - base,
            Some((first, rest)) => {
                let (offset, part) = self.fields.entry(first.to_owned()).or_default();
                part.put(rest, at, base + *offset);
            }
        }
    }

    /// Declares all of the structure's fields, each at its own place; `moved` lies a byte further
    /// on.
    fn declare(&self, path: &str, moved: Option<&str>, c: &mut String) {
        for (name, (offset, part)) in &self.fields {
            let path = format!("{path}{name}");
            let offset = offset + u64::from(moved == Some(path.as_str()));
            let _ = write!(c, "struct {{ char p_{name}[{offset}]; ");
            match part.fields.is_empty() {
                true => c.push_str("char"),
                false => {
                    c.push_str("union { ");
                    part.declare(&format!("{path}."), moved, c);
                    c.push_str("} __attribute__((packed))");
                }
            }
            let _ = write!(c, " {name}; }} __attribute__((packed)); ");
        }
    }
}

/// A structure's size, and where its fields lie.
type Asserted = (u64, Vec<(&'static str, u64)>);

/// The structures that are asserted.
fn structures() -> BTreeMap<&'static str, Asserted> {
    let mut all: BTreeMap<&str, Asserted> = BTreeMap::new();
    for (ty, size) in conditions("sizeof(", ") == ") {
        all.entry(ty).or_default().0 = size.parse().expect("a number");
    }
    for (field, at) in conditions("__builtin_offsetof(", ") == ") {
        let (ty, path) = field.split_once(", ").expect("a type and a field");
        all.entry(ty).or_default().1.push((path, at.parse().expect("a number")));
    }
    all
}

/// The messages of clang about a file.
fn compile(c: &str) -> String {
    let mut clang = Command::new("clang")
        .args(["-x", "c", "-std=gnu99", "-fsyntax-only", "-w", "-ferror-limit=0"])
        .args(["-fno-caret-diagnostics", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("clang runs");
    clang.stdin.take().expect("a pipe").write_all(c.as_bytes()).expect("clang reads");
    String::from_utf8_lossy(&clang.wait_with_output().expect("clang ends").stderr).into_owned()
}

#[test]
fn each_field_that_moves_and_each_size_that_changes_is_noticed() {
    let (mut c, mut expected) = (String::new(), Vec::new());
    for (ty, (size, fields)) in structures() {
        let mut part = Part::default();
        for (path, at) in &fields {
            part.put(path, *at, 0);
        }
        let changes = fields.iter().map(|(path, _)| Some(*path)).chain([None, Some("its size")]);
        for moved in changes {
            let n = expected.len();
            let size_here = size + u64::from(moved == Some("its size"));
            let tag = ty.replace("struct ", "").replace("union ", "");
            let _ = write!(
                c,
                "void f{n}(void) {{ struct dm_{tag} {{ union {{ char dm_size[{size_here}]; "
            );
            part.declare("", moved, &mut c);
            let _ = writeln!(c, "}}; }} __attribute__((packed));");
            let _ =
                writeln!(c, "_Static_assert(sizeof(struct dm_{tag}) == {size}, \"<{n}> size\");");
            for (path, at) in &fields {
                let _ = writeln!(
                    c,
                    "_Static_assert(__builtin_offsetof(struct dm_{tag}, {path}) == {at}, \"<{n}> {path}\");"
                );
            }
            c.push_str("}\n");
            expected.push((ty, moved));
        }
    }
    assert!(expected.len() > 300, "{} kernels", expected.len());
    let said = compile(&c);
    for (n, (ty, moved)) in expected.iter().enumerate() {
        let noticed = said.contains(&format!("<{n}>"));
        assert_eq!(noticed, moved.is_some(), "{ty}, {moved:?}\n{}", &said[..said.len().min(2000)]);
    }
}

#[test]
fn each_constant_that_changes_is_noticed() {
    let (mut c, mut constants) = (String::new(), 0usize);
    for (name, value) in conditions("(unsigned int)(", ") == ") {
        let value: u64 = value.trim_end_matches('U').parse().expect("a number");
        let other = value ^ 1;
        let _ = writeln!(
            c,
            "void f{constants}(void) {{ enum {{ {name} = {other} }}; \
             _Static_assert((unsigned int)({name}) == {value}U, \"<{constants}>\"); }}"
        );
        constants += 1;
    }
    assert!(constants > 80, "{constants} constants");
    let said = compile(&c);
    for n in 0..constants {
        assert!(said.contains(&format!("<{n}>")), "constant {n}");
    }
}

/// The parts of a type of a pointer to a function: the type of its result, and those of its
/// arguments.
fn signature(ty: &str) -> (&str, Vec<&str>) {
    let (result, rest) = ty.split_once(" (*)(").expect("a pointer to a function");
    let (mut args, mut start, mut depth) = (Vec::new(), 0, 0usize);
    let rest = rest.strip_suffix(')').expect("its end");
    for (at, c) in rest.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                args.push(rest[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    args.push(rest[start..].trim());
    (result, args)
}

/// Types that could be mistaken for this one, and one that could not.
fn others(ty: &str) -> Vec<String> {
    let mut others = vec!["struct dm_other *".to_owned()];
    match (ty.strip_prefix("const "), ty.ends_with('*')) {
        (Some(plain), true) => others.push(plain.to_owned()),
        (None, true) => others.push(format!("const {ty}")),
        (_, false) if ty != "void" => others.push(format!("{ty} *")),
        (_, false) => {}
    }
    match ty {
        "int" => others.push("unsigned int".to_owned()),
        "unsigned int" | "long" => others.push("unsigned long".to_owned()),
        _ => {}
    }
    others
}

/// Declares all types that are named, each unlike the others.
fn declare_types<'t>(types: impl Iterator<Item = &'t str>) -> String {
    const C: &[&str] = &["void", "char", "short", "int", "long", "unsigned", "signed", "const"];
    let (mut c, mut seen) = ("struct dm_other;\n".to_owned(), BTreeMap::new());
    for ty in types {
        let words = ty.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let words: Vec<_> = words.filter(|w| !w.is_empty()).collect();
        for (at, word) in words.iter().enumerate() {
            let tag = at.checked_sub(1).map_or("", |before| words[before]);
            let is_tag = ["struct", "union", "enum"].contains(&tag);
            if C.contains(word) || ["struct", "union", "enum"].contains(word) {
                continue;
            }
            if seen.insert((*word, is_tag), ()).is_none() {
                let _ = match tag {
                    "enum" => writeln!(c, "enum {word} {{ dm_{word} }};"),
                    _ if is_tag => writeln!(c, "{tag} {word};"),
                    _ => writeln!(c, "typedef struct {{ int dm_{word}; }} {word};"),
                };
            }
        }
    }
    c
}

#[test]
fn each_prototype_that_differs_is_noticed() {
    let before = "__builtin_types_compatible_p(__typeof__(&";
    let all: Vec<_> =
        conditions(before, "), ").map(|(name, ty)| (name, ty.strip_suffix(')').unwrap())).collect();
    let mut c = declare_types(all.iter().map(|(_, ty)| *ty));
    let mut expected = Vec::new();
    for (name, ty) in &all {
        let (result, args) = signature(ty);
        let join = |args: &[String]| args.join(", ");
        let owned: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        // As it is, which is not to be noticed.
        let mut variants = vec![(result.to_owned(), join(&owned))];
        variants.extend(others(result).into_iter().map(|other| (other, join(&owned))));
        for at in (0..args.len()).filter(|at| args[*at] != "void") {
            for other in others(args[at]) {
                let mut args = owned.clone();
                args[at] = other;
                variants.push((result.to_owned(), join(&args)));
            }
            let mut fewer = owned.clone();
            fewer.remove(at);
            let fewer = if fewer.is_empty() { "void".to_owned() } else { join(&fewer) };
            variants.push((result.to_owned(), fewer));
        }
        let more = if args == ["void"] { String::new() } else { join(&owned) + ", " };
        variants.push((result.to_owned(), more + "struct dm_other *"));
        for (variant, (result, args)) in variants.into_iter().enumerate() {
            let n = expected.len();
            let _ = writeln!(
                c,
                "extern {result} {name}_{n}({args});\n\
                 _Static_assert(__builtin_types_compatible_p(__typeof__(&{name}_{n}), {ty}), \"<{n}>\");"
            );
            expected.push((format!("{result} {name}({args})"), variant != 0));
        }
    }
    assert!(all.len() > 80 && expected.len() > 500, "{}, {}", all.len(), expected.len());
    let said = compile(&c);
    for (n, (declared, differs)) in expected.iter().enumerate() {
        let noticed = said.contains(&format!("<{n}>"));
        assert_eq!(noticed, *differs, "{declared}\n{}", &said[..said.len().min(2000)]);
    }
}

/// Fields whose assertions were once forgotten.
#[test]
fn what_the_driver_reaches_is_asserted() {
    for field in [
        "struct buf, b_cflags",
        "struct buf, b_oflags",
        "struct buf, b_objlock",
        "struct buf, b_bufsize",
        "struct buf, b_u.u_actq.tqe_next",
        "struct disk, dk_openlock",
        "struct disk, dk_label",
        "struct disk, dk_stats",
        "struct vnode, v_interlock",
        "struct vnode, v_writecount",
        "struct disklabel, d_partitions",
        "struct disklabel, d_un.un_d_packname",
        "struct partition, p_size",
        "struct partinfo, pi_secsize",
        "struct io_stats, io_busysum",
    ] {
        assert!(LAYOUT.contains(&format!("offsetof({field}) == ")), "{field}");
    }
    for ty in ["struct kmutex", "struct kcondvar", "struct buf", "struct cfdata", "struct disk"] {
        assert!(LAYOUT.contains(&format!("sizeof({ty}) == ")), "{ty}");
    }
    for constant in
        ["B_READ", "BC_BUSY", "IPL_BIO", "PR_NOWAIT", "DIOCGDINFO", "KM_SLEEP", "LK_RETRY"]
    {
        let asserted = LAYOUT.contains(&format!("({constant}) == "));
        let by_the_shim = include_str!("shim.c").contains(constant);
        assert!(asserted || by_the_shim, "{constant}");
    }
    for errno in ["EPERM", "EROFS", "ELOOP", "EOPNOTSUPP"] {
        assert!(LAYOUT.contains(&format!("DM_LAYOUT({errno} == ")), "{errno}");
    }
    for function in
        ["biodone", "VOP_OPEN", "VOP_STRATEGY", "vn_close", "mutex_enter", "disk_set_info"]
    {
        assert!(LAYOUT.contains(&format!("__typeof__(&{function})")), "{function}");
    }
}
