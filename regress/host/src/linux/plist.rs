// SPDX-License-Identifier: BSD-2-Clause

//! Property lists for the driver and from it, wiped when they are dropped: a table may hold keys.

use std::fmt::Write as _;

use plist::Value;
use zeroize::{Zeroize, Zeroizing};

use super::Fault;

/// A dictionary that grows.
pub struct Request(Zeroizing<String>);

impl Request {
    /// A request with a command.
    pub fn new(command: &str) -> Request {
        let mut request = Request(Zeroizing::new(String::from("<plist version=\"1.0\"><dict>")));
        request.text("command", command);
        request
    }

    /// Makes room for further bytes, so that no copy of the text is left behind when it grows.
    pub fn reserve(&mut self, bytes: usize) {
        let mut larger = Zeroizing::new(String::with_capacity(self.0.len().saturating_add(bytes)));
        larger.push_str(&self.0);
        self.0 = larger;
    }

    /// Adds a key with a text.
    pub fn text(&mut self, key: &str, value: &str) {
        // A String takes all that is written to it.
        let _ = write!(self.0, "<key>{key}</key><string>");
        self.escaped(value);
        self.0.push_str("</string>");
    }

    /// Adds a key with a number.
    pub fn number(&mut self, key: &str, value: u64) {
        let _ = write!(self.0, "<key>{key}</key><integer>{value:#x}</integer>");
    }

    /// Adds a key with an array, whose elements `each` writes.
    pub fn array(&mut self, key: &str, each: impl FnOnce(&mut Request)) {
        let _ = write!(self.0, "<key>{key}</key><array>");
        each(self);
        self.0.push_str("</array>");
    }

    /// Adds a dictionary to an array.
    pub fn dictionary(&mut self, each: impl FnOnce(&mut Request)) {
        self.0.push_str("<dict>");
        each(self);
        self.0.push_str("</dict>");
    }

    /// Adds a text to an array.
    pub fn element(&mut self, value: &str) {
        self.0.push_str("<string>");
        self.escaped(value);
        self.0.push_str("</string>");
    }

    fn escaped(&mut self, value: &str) {
        for character in value.chars() {
            match character {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                other => self.0.push(other),
            }
        }
    }

    /// Ends the dictionary, and returns the whole text.
    pub fn end(mut self) -> Zeroizing<String> {
        self.0.push_str("</dict></plist>");
        self.0
    }
}

/// A dictionary that came back.
pub struct Reply(Value);

impl Reply {
    /// Parses a reply.
    ///
    /// # Errors
    /// EIO for what is no dictionary.
    pub fn parse(text: &str) -> Result<Reply, Fault> {
        match Value::from_reader_xml(text.as_bytes()) {
            Ok(value @ Value::Dictionary(_)) => Ok(Reply(value)),
            _ => Err(Fault(libc::EIO)),
        }
    }

    /// The text at `key`; empty when there is none.
    pub fn text(&self, key: &str) -> &str {
        text(&self.0, key)
    }

    /// A number, if the key holds one.
    pub fn number(&self, key: &str) -> Option<u64> {
        number(self.0.as_dictionary()?.get(key)?)
    }

    /// A number of 32 bits; 0 when there is none.
    pub fn word(&self, key: &str) -> u32 {
        self.number(key).and_then(|n| u32::try_from(n).ok()).unwrap_or(0)
    }

    /// An array's values; none when there is no array.
    pub fn array(&self, key: &str) -> &[Value] {
        let array = self.0.as_dictionary().and_then(|dict| dict.get(key)?.as_array());
        array.map_or(&[], Vec::as_slice)
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

fn wipe(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(wipe),
        Value::Dictionary(dict) => dict.iter_mut().for_each(|(_, value)| wipe(value)),
        Value::String(text) => text.zeroize(),
        _ => {}
    }
}

/// A text in a dictionary; empty when there is none.
pub fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    let found = value.as_dictionary().and_then(|dict| dict.get(key)?.as_string());
    found.unwrap_or_default()
}

/// A number of 0 or more.
pub fn number(value: &Value) -> Option<u64> {
    let signed = || value.as_signed_integer().and_then(|n| u64::try_from(n).ok());
    value.as_unsigned_integer().or_else(signed)
}
