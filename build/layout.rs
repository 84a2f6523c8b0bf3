// SPDX-License-Identifier: BSD-2-Clause

//! The Rust object's assumptions about a kernel, said in C: `dm_layout.h`, for the compiler that
//! builds the kernel to check against the headers of that kernel.
//!
//! Asserted are the sizes of the structures that the driver uses and the offsets of all their fields, the
//! value of every constant it uses, and the prototype of every function it calls. What it uses are the
//! names that stand in its sources, and what can be reached by way of fields that stand there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use syn::{BinOp, Expr, Fields, ForeignItem, Item, Lit, ReturnType, Stmt, Type};

/// Structures that are only made room for: what is in them is the kernel's own.
const ROOM: &[&str] = &["kmutex", "kcondvar", "callout"];

/// Everything that bindgen found, as far as it is needed here.
#[derive(Default)]
struct Found {
    /// The fields of structures and unions, with their types.
    structs: BTreeMap<String, Vec<(String, Type)>>,
    unions: BTreeSet<String>,
    sizes: BTreeMap<String, u64>,
    offsets: BTreeMap<(String, String), u64>,
    aliases: BTreeMap<String, Type>,
    constants: BTreeMap<String, (Type, Expr)>,
    functions: BTreeMap<String, syn::Signature>,
}

/// Writes `dm_layout.h`. `sources` is the text of all sources of the driver, `errnos` that of the file
/// with the table of error numbers, and `opaque` names what is never looked into.
pub fn header(bindings: &str, sources: &str, errnos: &str, opaque: &[&str]) -> String {
    let file = syn::parse_file(bindings).expect("bindgen writes Rust");
    let found = find(&file);
    let words: BTreeSet<&str> =
        sources.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    let mut c = String::from(
        "/* Made by build.rs from what bindgen read: what the Rust object takes for granted. */\n",
    );
    for name in used(&found, &words, opaque) {
        let ty = found.c_name(&name);
        if let Some(size) = found.sizes.get(&name) {
            let _ = writeln!(c, "DM_LAYOUT(sizeof({ty}) == {size}, \"{ty} has another size\");");
        }
        if !ROOM.contains(&name.as_str()) {
            offsets(&found, &name, &ty, "", 0, &mut c);
        }
    }
    for (name, (ty, value)) in
        found.constants.iter().filter(|(name, _)| words.contains(name.as_str()))
    {
        let c_name = match ty {
            Type::Path(path) => {
                let ty = path.path.segments.last().map(|s| s.ident.to_string()).unwrap_or_default();
                name.strip_prefix(&format!("{ty}_")).unwrap_or(name).to_owned()
            }
            _ => name.clone(),
        };
        if let Some(number) = number(value) {
            let _ = writeln!(
                c,
                "DM_LAYOUT((unsigned int)({c_name}) == {}U, \"{c_name} is another number\");",
                number as u32
            );
        } else if let Expr::Lit(lit) = value
            && let Lit::ByteStr(text) = &lit.lit
        {
            let text = String::from_utf8_lossy(&text.value()).trim_end_matches('\0').to_owned();
            let _ = writeln!(
                c,
                "DM_LAYOUT(__builtin_strcmp({c_name}, \"{text}\") == 0, \"{c_name} is another word\");"
            );
        }
    }
    for (name, number) in errnos.lines().filter_map(errno) {
        let _ = writeln!(c, "DM_LAYOUT({name} == {number}, \"{name} is another number\");");
    }
    for (name, signature) in &found.functions {
        if words.contains(name.as_str()) && !name.starts_with("dm_") {
            let Some(ty) = found.prototype(signature) else { continue };
            let _ = writeln!(
                c,
                "DM_LAYOUT(__builtin_types_compatible_p(__typeof__(&{name}), {ty}), \
                 \"{name} has another prototype\");"
            );
        }
    }
    c
}

fn find(file: &syn::File) -> Found {
    let mut found = Found::default();
    let fields = |fields: &Fields| {
        fields
            .iter()
            .filter_map(|field| Some((field.ident.as_ref()?.to_string(), field.ty.clone())))
            .collect::<Vec<_>>()
    };
    for item in &file.items {
        match item {
            Item::Struct(item) => {
                found.structs.insert(item.ident.to_string(), fields(&item.fields));
            }
            Item::Union(item) => {
                let name = item.ident.to_string();
                found.unions.insert(name.clone());
                found.structs.insert(name, fields(&Fields::Named(item.fields.clone())));
            }
            Item::Type(item) => {
                found.aliases.insert(item.ident.to_string(), (*item.ty).clone());
            }
            Item::Const(item) if item.ident == "_" => {
                if let Expr::Block(block) = &*item.expr {
                    block.block.stmts.iter().for_each(|stmt| assertion(stmt, &mut found));
                }
            }
            Item::Const(item) => {
                let value = ((*item.ty).clone(), (*item.expr).clone());
                found.constants.insert(item.ident.to_string(), value);
            }
            Item::ForeignMod(block) => {
                for item in &block.items {
                    if let ForeignItem::Fn(function) = item {
                        found
                            .functions
                            .insert(function.sig.ident.to_string(), function.sig.clone());
                    }
                }
            }
            _ => {}
        }
    }
    found
}

/// Reads one of bindgen's own assertions: `["Size of buf"][::core::mem::size_of::<buf>() - 280usize];`
fn assertion(stmt: &Stmt, found: &mut Found) {
    let Stmt::Expr(Expr::Index(index), _) = stmt else { return };
    let (Expr::Array(what), Expr::Binary(difference)) = (&*index.expr, &*index.index) else {
        return;
    };
    let (Some(Expr::Lit(what)), BinOp::Sub(_)) = (what.elems.first(), &difference.op) else {
        return;
    };
    let (Lit::Str(what), Some(n)) = (&what.lit, number(&difference.right)) else { return };
    let (what, n) = (what.value(), n as u64);
    if let Some(ty) = what.strip_prefix("Size of ") {
        found.sizes.insert(ty.to_owned(), n);
    } else if let Some(field) = what.strip_prefix("Offset of field: ")
        && let Some((ty, field)) = field.split_once("::")
    {
        found.offsets.insert((ty.to_owned(), field.to_owned()), n);
    }
}

fn number(value: &Expr) -> Option<i64> {
    match value {
        Expr::Lit(lit) => match &lit.lit {
            Lit::Int(n) => n.base10_parse::<i128>().ok().map(|n| n as i64),
            _ => None,
        },
        Expr::Unary(unary) if matches!(unary.op, syn::UnOp::Neg(_)) => {
            number(&unary.expr).map(i64::wrapping_neg)
        }
        _ => None,
    }
}

/// A line of the table of error numbers: `EPERM = 1, "Operation not permitted";`
fn errno(line: &str) -> Option<(&str, i32)> {
    let (name, rest) = line.trim().split_once(" = ")?;
    let (number, text) = rest.split_once(',')?;
    let named =
        name.starts_with('E') && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit());
    (named && text.trim_start().starts_with('"')).then_some(name).zip(number.parse().ok())
}

/// The structures that the driver uses.
fn used(found: &Found, words: &BTreeSet<&str>, opaque: &[&str]) -> BTreeSet<String> {
    let named = found.structs.keys().filter(|name| words.contains(name.as_str()));
    let aliased = words.iter().filter_map(|word| found.target(found.aliases.get(*word)?));
    let mut left: Vec<String> = named.cloned().chain(aliased).collect();
    let mut used = BTreeSet::new();
    while let Some(name) = left.pop() {
        let is_known = found.sizes.contains_key(&name) && !opaque.contains(&c_word(&name));
        if name.contains("__bindgen") || !is_known || !used.insert(name.clone()) {
            continue;
        }
        let mut inner = vec![name];
        while let Some(name) = inner.pop() {
            for (field, ty) in found.structs.get(&name).into_iter().flatten() {
                let Some(target) = found.target(ty) else { continue };
                if target.contains("__bindgen") {
                    inner.push(target);
                } else if words.contains(field.as_str()) {
                    left.push(target);
                }
            }
        }
    }
    used
}

/// The offsets of a structure's fields, and of those within its unnamed parts.
fn offsets(found: &Found, name: &str, ty: &str, path: &str, base: u64, c: &mut String) {
    for (field, field_ty) in found.structs.get(name).into_iter().flatten() {
        let Some(offset) = found.offsets.get(&(name.to_owned(), field.clone())) else { continue };
        let at = base + offset;
        let unnamed = field.starts_with("__bindgen");
        if field.starts_with("_bitfield") {
            continue;
        }
        let full = match unnamed {
            true => path.to_owned(),
            false => format!("{path}{}", c_word(field)),
        };
        if !unnamed {
            let _ = writeln!(
                c,
                "DM_LAYOUT(__builtin_offsetof({ty}, {full}) == {at}, \"{ty} has moved {full}\");"
            );
        }
        if let Type::Path(_) = field_ty
            && let Some(inner) = found.target(field_ty).filter(|inner| inner.contains("__bindgen"))
        {
            let path = if unnamed { full } else { format!("{full}.") };
            offsets(found, &inner, ty, &path, at, c);
        }
    }
}

/// A name as C has it: bindgen puts a line after words of Rust's own, and after `proc`.
fn c_word(name: &str) -> &str {
    const WORDS: &[&str] =
        &["type_", "use_", "ref_", "fn_", "mod_", "in_", "match_", "self_", "move_", "proc_"];
    if WORDS.contains(&name) { name.strip_suffix('_').unwrap_or(name) } else { name }
}

impl Found {
    /// The structure that a type is, points to, or is an array of.
    fn target(&self, ty: &Type) -> Option<String> {
        match ty {
            Type::Ptr(pointer) => self.target(&pointer.elem),
            Type::Array(array) => self.target(&array.elem),
            Type::Path(path) => {
                let name = path.path.segments.last()?.ident.to_string();
                match self.aliases.get(&name) {
                    Some(alias) => self.target(alias),
                    None => self.structs.contains_key(&name).then_some(name),
                }
            }
            _ => None,
        }
    }

    /// A structure's name in C.
    fn c_name(&self, name: &str) -> String {
        match name {
            // Structures without a tag go by their type's name.
            _ if name.ends_with("_t") || name.ends_with("_CTX") && !name.starts_with('_') => {
                name.to_owned()
            }
            _ if self.unions.contains(name) => format!("union {}", c_word(name)),
            _ => format!("struct {}", c_word(name)),
        }
    }

    /// The type of a pointer to a function, in C; `None` for one with `...`.
    fn prototype(&self, signature: &syn::Signature) -> Option<String> {
        if signature.variadic.is_some() {
            return None;
        }
        let args = signature.inputs.iter().map(|arg| match arg {
            syn::FnArg::Typed(arg) => self.c_type(&arg.ty),
            syn::FnArg::Receiver(_) => None,
        });
        self.function(&signature.output, args.collect::<Option<_>>()?)
    }

    fn function(&self, output: &ReturnType, args: Vec<String>) -> Option<String> {
        let result = match output {
            ReturnType::Default => "void".to_owned(),
            ReturnType::Type(_, ty) => self.c_type(ty)?,
        };
        let args = if args.is_empty() { "void".to_owned() } else { args.join(", ") };
        Some(format!("{result} (*)({args})"))
    }

    fn c_type(&self, ty: &Type) -> Option<String> {
        match ty {
            Type::Never(_) => Some("void".to_owned()),
            Type::Ptr(pointer) => {
                let constant = if pointer.const_token.is_some() { "const " } else { "" };
                Some(format!("{constant}{} *", self.c_type(&pointer.elem)?))
            }
            Type::Path(path) => {
                let last = path.path.segments.last()?;
                if last.ident == "Option" {
                    let syn::PathArguments::AngleBracketed(inner) = &last.arguments else {
                        return None;
                    };
                    let Some(syn::GenericArgument::Type(Type::BareFn(f))) = inner.args.first()
                    else {
                        return None;
                    };
                    if f.variadic.is_some() {
                        return None;
                    }
                    let args = f.inputs.iter().map(|arg| self.c_type(&arg.ty));
                    return self.function(&f.output, args.collect::<Option<_>>()?);
                }
                Some(self.c_word(&last.ident.to_string()))
            }
            _ => None,
        }
    }

    fn c_word(&self, name: &str) -> String {
        let plain = match name {
            "c_void" => "void",
            "c_char" => "char",
            "c_schar" => "signed char",
            "c_uchar" => "unsigned char",
            "c_short" => "short",
            "c_ushort" => "unsigned short",
            "c_int" => "int",
            "c_uint" => "unsigned int",
            "c_long" => "long",
            "c_ulong" => "unsigned long",
            "c_longlong" => "long long",
            "c_ulonglong" => "unsigned long long",
            "bool" => "bool",
            "usize" => "size_t",
            "isize" => "ssize_t",
            "u8" => "uint8_t",
            "u16" => "uint16_t",
            "u32" => "uint32_t",
            "u64" => "uint64_t",
            "i8" => "int8_t",
            "i16" => "int16_t",
            "i32" => "int32_t",
            "i64" => "int64_t",
            _ => "",
        };
        if !plain.is_empty() {
            return plain.to_owned();
        }
        // An alias without the ending of one is an enum's tag.
        let is_enum = self.aliases.get(name).is_some_and(|ty| self.target(ty).is_none())
            && !name.ends_with("_t")
            && !name.starts_with("u_");
        match self.structs.contains_key(name) {
            true => self.c_name(name),
            false if is_enum => format!("enum {name}"),
            false => name.to_owned(),
        }
    }
}
