// SPDX-License-Identifier: BSD-2-Clause

//! Property lists as plain values, and their XML form, as proplib(3) writes it.
//!
//! The parser takes the XML that proplib itself externalizes and little more: it is strict so that
//! a test notices a reply that is not proplib's.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::Cell;
use core::ffi::CStr;
use core::fmt::{self, Write};

use crate::Errno;
use crate::proplib::{self, Value};

/// A property list's value. A signed and an unsigned number are different values: proplib writes
/// the one in decimal and the other in hexadecimal, and tools can tell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Object {
    /// A number that was made from an unsigned one, or read from hexadecimal.
    Unsigned(u64),
    /// A number that was made from a signed one, or read from decimal.
    Signed(i64),
    /// A string.
    String(String),
    /// A boolean.
    Bool(bool),
    /// Data, in base64.
    Data(String),
    /// An array.
    Array(Array),
    /// A dictionary.
    Dict(Dict),
}

/// An array.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Array(pub Vec<Object>);

/// A dictionary, its keys in order as proplib keeps them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Dict(pub BTreeMap<String, Object>);

std::thread_local! {
    static ALLOCATIONS_LEFT: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Has the calling thread's property lists run out of memory after `n` allocations, or never
/// again.
pub fn fail_after(n: Option<usize>) {
    ALLOCATIONS_LEFT.set(n);
}

fn allocate() -> Result<(), Errno> {
    match ALLOCATIONS_LEFT.get() {
        Some(0) => Err(Errno::ENOMEM),
        Some(n) => {
            ALLOCATIONS_LEFT.set(Some(n - 1));
            Ok(())
        }
        None => Ok(()),
    }
}

impl Object {
    /// The dictionary as the driver's [`Value`].
    pub fn value(&self) -> Value<'_, Dict> {
        match self {
            Object::Unsigned(n) => Value::Unsigned(*n),
            Object::Signed(n) => u64::try_from(*n).map_or(Value::Negative(*n), Value::Unsigned),
            Object::String(text) => Value::String(text),
            Object::Array(array) => Value::Array(array.clone()),
            Object::Dict(dict) => Value::Dictionary(dict.clone()),
            Object::Bool(_) | Object::Data(_) => Value::Other,
        }
    }

    /// The number, signed or unsigned, unless it is negative.
    pub fn number(&self) -> Option<u64> {
        match self.value() {
            Value::Unsigned(n) => Some(n),
            _ => None,
        }
    }

    /// The string, if it is one.
    pub fn string(&self) -> Option<&str> {
        match self {
            Object::String(text) => Some(text),
            _ => None,
        }
    }

    /// The array, if it is one.
    pub fn array(&self) -> Option<&[Object]> {
        match self {
            Object::Array(array) => Some(&array.0),
            _ => None,
        }
    }

    /// The dictionary, if it is one.
    pub fn dict(&self) -> Option<&Dict> {
        match self {
            Object::Dict(dict) => Some(dict),
            _ => None,
        }
    }

    fn print(&self, out: &mut String, depth: usize) -> fmt::Result {
        (0..depth).for_each(|_| out.push('\t'));
        match self {
            Object::Unsigned(n) => writeln!(out, "<integer>{n:#x}</integer>"),
            Object::Signed(n) => writeln!(out, "<integer>{n}</integer>"),
            Object::String(text) if text.is_empty() => writeln!(out, "<string/>"),
            Object::String(text) => writeln!(out, "<string>{}</string>", escape(text)),
            Object::Bool(true) => writeln!(out, "<true/>"),
            Object::Bool(false) => writeln!(out, "<false/>"),
            Object::Data(text) => writeln!(out, "<data>{text}</data>"),
            Object::Array(array) if array.0.is_empty() => writeln!(out, "<array/>"),
            Object::Array(array) => {
                out.push_str("<array>\n");
                array.0.iter().try_for_each(|object| object.print(out, depth + 1))?;
                (0..depth).for_each(|_| out.push('\t'));
                writeln!(out, "</array>")
            }
            Object::Dict(dict) if dict.0.is_empty() => writeln!(out, "<dict/>"),
            Object::Dict(dict) => {
                out.push_str("<dict>\n");
                for (key, object) in &dict.0 {
                    (0..=depth).for_each(|_| out.push('\t'));
                    writeln!(out, "<key>{}</key>", escape(key))?;
                    object.print(out, depth + 1)?;
                }
                (0..depth).for_each(|_| out.push('\t'));
                writeln!(out, "</dict>")
            }
        }
    }
}

impl From<&str> for Object {
    fn from(text: &str) -> Object {
        Object::String(text.to_owned())
    }
}

impl From<u64> for Object {
    fn from(n: u64) -> Object {
        Object::Unsigned(n)
    }
}

impl From<Vec<Object>> for Object {
    fn from(list: Vec<Object>) -> Object {
        Object::Array(Array(list))
    }
}

impl From<Dict> for Object {
    fn from(dict: Dict) -> Object {
        Object::Dict(dict)
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

const HEADER: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE plist PUBLIC \
                      \"-//Apple Computer//DTD PLIST 1.0//EN\" \
                      \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n<plist \
                      version=\"1.0\">\n";
const FOOTER: &str = "</plist>\n";

/// The most containers that may be nested.
const DEPTH: usize = 32;

impl Dict {
    /// Reads a document.
    ///
    /// # Errors
    /// A message about the first thing that proplib does not write so.
    pub fn parse(xml: &str) -> Result<Dict, &'static str> {
        let body = xml.strip_prefix(HEADER).ok_or("not a property list's beginning")?;
        let body = body.strip_suffix(FOOTER).ok_or("not a property list's end")?;
        let mut parser = Parser { rest: body };
        match parser.object(0)? {
            Object::Dict(dict) if parser.rest.trim_start().is_empty() => Ok(dict),
            Object::Dict(_) => Err("something behind the dictionary"),
            _ => Err("not a dictionary"),
        }
    }

    /// Writes a document.
    pub fn print(&self) -> String {
        let mut out = String::from(HEADER);
        // A String takes all that is written to it.
        let _ = Object::Dict(self.clone()).print(&mut out, 0);
        out.push_str(FOOTER);
        out
    }

    /// The value at `key`.
    pub fn at(&self, key: &str) -> Option<&Object> {
        self.0.get(key)
    }

    /// Sets the value at `key`.
    pub fn put(&mut self, key: &str, value: impl Into<Object>) {
        self.0.insert(key.to_owned(), value.into());
    }

    /// The number at `key`.
    pub fn number(&self, key: &str) -> Option<u64> {
        self.at(key)?.number()
    }

    /// The string at `key`.
    pub fn string(&self, key: &str) -> Option<&str> {
        self.at(key)?.string()
    }

    /// The array at `key`.
    pub fn array(&self, key: &str) -> Option<&[Object]> {
        self.at(key)?.array()
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    /// The next tag, without its brackets.
    fn tag(&mut self) -> Result<&'a str, &'static str> {
        self.rest = self.rest.trim_ascii_start();
        let rest = self.rest.strip_prefix('<').ok_or("a tag is missing")?;
        let (tag, rest) = rest.split_once('>').ok_or("a tag without end")?;
        self.rest = rest;
        Ok(tag)
    }

    /// The text up to the closing tag of `tag`.
    fn text(&mut self, tag: &str) -> Result<String, &'static str> {
        let (text, rest) = self.rest.split_once('<').ok_or("a text without end")?;
        let rest = rest.strip_prefix('/').and_then(|r| r.strip_prefix(tag));
        self.rest = rest.and_then(|r| r.strip_prefix('>')).ok_or("a wrong closing tag")?;
        let mut plain = String::new();
        let mut parts = text.split('&');
        plain.push_str(parts.next().unwrap_or(""));
        for part in parts {
            let (entity, after) = part.split_once(';').ok_or("an entity without end")?;
            plain.push(match entity {
                "amp" => '&',
                "lt" => '<',
                "gt" => '>',
                "apos" => '\'',
                "quot" => '"',
                _ => return Err("an unknown entity"),
            });
            plain.push_str(after);
        }
        Ok(plain)
    }

    fn object(&mut self, depth: usize) -> Result<Object, &'static str> {
        let tag = self.tag()?;
        self.tagged(tag, depth)
    }

    fn tagged(&mut self, tag: &str, depth: usize) -> Result<Object, &'static str> {
        if depth > DEPTH {
            return Err("too deep");
        }
        Ok(match tag {
            "true/" => Object::Bool(true),
            "false/" => Object::Bool(false),
            "string/" => Object::String(String::new()),
            "string" => Object::String(self.text(tag)?),
            "data" => Object::Data(self.text(tag)?),
            "integer" => number(&self.text(tag)?)?,
            "array/" => Object::Array(Array::default()),
            "array" => {
                let mut list = Vec::new();
                loop {
                    match self.tag()? {
                        "/array" => break Object::Array(Array(list)),
                        tag => list.push(self.tagged(tag, depth + 1)?),
                    }
                }
            }
            "dict/" => Object::Dict(Dict::default()),
            "dict" => {
                let mut dict = Dict::default();
                loop {
                    match self.tag()? {
                        "/dict" => break Object::Dict(dict),
                        "key" => {
                            let key = self.text("key")?;
                            let value = self.object(depth + 1)?;
                            if dict.0.insert(key, value).is_some() {
                                return Err("a key twice");
                            }
                        }
                        _ => return Err("a dictionary without keys"),
                    }
                }
            }
            _ => return Err("an unknown tag"),
        })
    }
}

fn number(text: &str) -> Result<Object, &'static str> {
    let wrong = "not a number";
    if let Some(digits) = text.strip_prefix("0x") {
        if digits.starts_with('+') {
            return Err(wrong);
        }
        return u64::from_str_radix(digits, 16).map(Object::Unsigned).map_err(|_| wrong);
    }
    if text.starts_with('+') {
        return Err(wrong);
    }
    let signed = text.parse().map(Object::Signed);
    signed.or_else(|_| text.parse().map(Object::Unsigned)).map_err(|_| wrong)
}

impl proplib::Dictionary for Dict {
    type Array = Array;

    fn new() -> Result<Dict, Errno> {
        allocate()?;
        Ok(Dict::default())
    }

    fn get(&self, key: &CStr) -> Option<Value<'_, Dict>> {
        self.0.get(key.to_str().ok()?).map(Object::value)
    }

    fn set_unsigned(&mut self, key: &CStr, value: u64) -> Result<(), Errno> {
        self.set(key, Object::Unsigned(value))
    }

    fn set_signed(&mut self, key: &CStr, value: i64) -> Result<(), Errno> {
        self.set(key, Object::Signed(value))
    }

    fn set_string(&mut self, key: &CStr, value: &str) -> Result<(), Errno> {
        self.set(key, Object::String(value.to_owned()))
    }

    fn set_array(&mut self, key: &CStr, value: Array) -> Result<(), Errno> {
        self.set(key, Object::Array(value))
    }
}

impl Dict {
    fn set(&mut self, key: &CStr, value: Object) -> Result<(), Errno> {
        allocate()?;
        self.0.insert(key.to_str().map_err(|_| Errno::EINVAL)?.to_owned(), value);
        Ok(())
    }
}

impl proplib::Array for Array {
    type Dictionary = Dict;

    fn new() -> Result<Array, Errno> {
        allocate()?;
        Ok(Array::default())
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn get(&self, index: usize) -> Option<Value<'_, Dict>> {
        self.0.get(index).map(Object::value)
    }

    fn push_unsigned(&mut self, value: u64) -> Result<(), Errno> {
        self.push(Object::Unsigned(value))
    }

    fn push_signed(&mut self, value: i64) -> Result<(), Errno> {
        self.push(Object::Signed(value))
    }

    fn push_dictionary(&mut self, value: Dict) -> Result<(), Errno> {
        self.push(Object::Dict(value))
    }
}

impl Array {
    fn push(&mut self, value: Object) -> Result<(), Errno> {
        allocate()?;
        self.0.push(value);
        Ok(())
    }
}
