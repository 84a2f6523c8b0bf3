// SPDX-License-Identifier: BSD-2-Clause

//! The external form of property lists, as a NetBSD kernel reads and writes it.
//!
//! Neither direction recurses, however deep a list nests. The reader accepts and refuses what the
//! kernel's does, with its peculiarities: attributes other than those it knows are refused, an
//! empty integer is 0, and a number beyond 64 bits becomes the largest there is.

use std::sync::Mutex;

use super::dictionary::MAXKEY;
use super::{Array, Body, Dictionary, Number, Ref, lock};

const HEADER: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
    <!DOCTYPE plist PUBLIC \"-//Apple Computer//DTD PLIST 1.0//EN\" \
    \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n<plist version=\"1.0\">\n";
const FOOTER: &str = "</plist>\n";
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Reads a property list and writes it as the kernel would; `None` if it is none.
pub fn round_trip(text: &str) -> Option<String> {
    internalize(text.as_bytes()).map(|o| externalize(&o))
}

enum Step {
    Object(usize, Ref),
    Text(usize, &'static str),
    Key(usize, Ref),
}

/// The external form of an object.
pub(crate) fn externalize(object: &Ref) -> String {
    let mut out = Vec::from(HEADER);
    let mut steps = vec![Step::Object(0, object.clone())];
    while let Some(step) = steps.pop() {
        match step {
            Step::Text(depth, text) => {
                indent(&mut out, depth);
                out.extend_from_slice(text.as_bytes());
            }
            Step::Key(depth, key) => {
                indent(&mut out, depth);
                out.extend_from_slice(b"<key>");
                escape(&mut out, key.key());
                out.extend_from_slice(b"</key>\n");
            }
            Step::Object(depth, object) => write(&mut out, &mut steps, depth, &object),
        }
    }
    out.extend_from_slice(FOOTER.as_bytes());
    match String::from_utf8(out) {
        Ok(text) => text,
        Err(e) => String::from_utf8_lossy(e.as_bytes()).into_owned(),
    }
}

fn indent(out: &mut Vec<u8>, depth: usize) {
    out.resize(out.len() + depth, b'\t');
}

fn escape(out: &mut Vec<u8>, text: &[u8]) {
    for byte in text {
        match byte {
            b'<' => out.extend_from_slice(b"&lt;"),
            b'>' => out.extend_from_slice(b"&gt;"),
            b'&' => out.extend_from_slice(b"&amp;"),
            byte => out.push(*byte),
        }
    }
}

fn write(out: &mut Vec<u8>, steps: &mut Vec<Step>, depth: usize, object: &Ref) {
    indent(out, depth);
    match object.body() {
        Body::Bool(value) => {
            out.extend_from_slice(if *value { b"<true/>\n" } else { b"<false/>\n" })
        }
        Body::Number(Number::Signed(v)) => {
            out.extend_from_slice(format!("<integer>{v}</integer>\n").as_bytes());
        }
        Body::Number(Number::Unsigned(v)) => {
            out.extend_from_slice(format!("<integer>{v:#x}</integer>\n").as_bytes());
        }
        Body::String(text) | Body::Keysym(text) => {
            if text.len() <= 1 {
                out.extend_from_slice(b"<string/>\n");
            } else {
                out.extend_from_slice(b"<string>");
                escape(out, &text[..text.len() - 1]);
                out.extend_from_slice(b"</string>\n");
            }
        }
        Body::Data(data) => {
            if data.is_empty() {
                out.extend_from_slice(b"<data/>\n");
            } else {
                out.extend_from_slice(b"<data>");
                encode(out, data);
                out.extend_from_slice(b"</data>\n");
            }
        }
        Body::Array(array) => {
            let array = lock(array);
            if array.items.is_empty() {
                out.extend_from_slice(b"<array/>\n");
            } else {
                out.extend_from_slice(b"<array>\n");
                steps.push(Step::Text(depth, "</array>\n"));
                let items = array.items.iter().rev();
                steps.extend(items.map(|item| Step::Object(depth + 1, item.clone())));
            }
        }
        Body::Dictionary(dictionary) => {
            let dictionary = lock(dictionary);
            if dictionary.entries.is_empty() {
                out.extend_from_slice(b"<dict/>\n");
            } else {
                out.extend_from_slice(b"<dict>\n");
                steps.push(Step::Text(depth, "</dict>\n"));
                for (key, value) in dictionary.entries.iter().rev() {
                    steps.push(Step::Object(depth + 1, value.clone()));
                    steps.push(Step::Key(depth + 1, key.clone()));
                }
            }
        }
        Body::Iterator(_) => {}
    }
}

fn encode(out: &mut Vec<u8>, data: &[u8]) {
    for chunk in data.chunks(3) {
        let word =
            chunk.iter().fold(0u32, |w, b| w << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let digit = BASE64[(word >> (18 - 6 * i) & 63) as usize];
            out.push(if i <= chunk.len() { digit } else { b'=' });
        }
    }
}

/// Reads a property list. None for anything that the kernel would refuse.
pub(crate) fn internalize(text: &[u8]) -> Option<Ref> {
    let mut reader = Reader { text, at: 0 };
    reader.skip_preamble()?;
    let plist = reader.tag(Kind::Start)?;
    if plist.name != b"plist"
        || plist.empty
        || plist.attribute.is_some_and(|(name, _)| name != b"version")
    {
        return None;
    }
    let tag = reader.tag(Kind::Start)?;
    let object = reader.object(tag)?;
    let end = reader.tag(Kind::End)?;
    (end.name == b"plist").then_some(object)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Start,
    End,
    Either,
}

struct Tag<'a> {
    name: &'a [u8],
    end: bool,
    empty: bool,
    attribute: Option<(&'a [u8], &'a [u8])>,
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

/// A collection that is being read.
enum Open {
    Array(Vec<Ref>),
    /// The entries so far, and the key whose value comes next.
    Dictionary(Dictionary, Vec<u8>),
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

impl<'a> Reader<'a> {
    /// The byte `ahead` of the place, 0 at the end.
    fn peek(&self, ahead: usize) -> u8 {
        self.text.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn skip_space(&mut self) {
        while is_space(self.peek(0)) {
            self.at += 1;
        }
    }

    fn starts_with(&self, what: &[u8]) -> bool {
        self.text[self.at..].starts_with(what)
    }

    /// Goes on to the first byte for which `stop` is `true`, and returns the bytes before it; `None` at the end.
    fn until(&mut self, stop: impl Fn(u8) -> bool) -> Option<&'a [u8]> {
        let rest = &self.text[self.at..];
        let len = rest.iter().position(|b| stop(*b))?;
        self.at += len;
        Some(&rest[..len])
    }

    fn skip_preamble(&mut self) -> Option<()> {
        loop {
            self.skip_space();
            if self.peek(0) != b'<' {
                return None;
            }
            if !self.starts_with(b"<?xml ") && !self.starts_with(b"<!DOCTYPE plist") {
                return Some(());
            }
            self.until(|b| b == b'>')?;
            self.at += 1;
        }
    }

    fn tag(&mut self, wanted: Kind) -> Option<Tag<'a>> {
        loop {
            self.skip_space();
            if self.peek(0) != b'<' {
                return None;
            }
            self.at += 1;
            if self.peek(0) != b'!' {
                break;
            }
            if !self.starts_with(b"!--") || wanted == Kind::End {
                return None;
            }
            self.at += 3;
            let rest = &self.text[self.at..];
            self.at += rest.windows(3).position(|w| w == b"-->")? + 3;
        }
        let end = self.peek(0) == b'/';
        if end {
            self.at += 1;
        }
        if (end && wanted == Kind::Start) || (!end && wanted == Kind::End) {
            return None;
        }
        let name = self.until(|b| is_space(b) || b == b'/' || b == b'>')?;
        let mut empty = false;
        if self.peek(0) == b'/' {
            if end {
                return None;
            }
            empty = true;
            self.at += 1;
            if self.peek(0) != b'>' {
                return None;
            }
        }
        if self.peek(0) == b'>' {
            self.at += 1;
            return Some(Tag { name, end, empty, attribute: None });
        }
        // One attribute, in double quotes, and nothing after it.
        self.at += 1;
        self.skip_space();
        let attribute = self.until(|b| is_space(b) || b == b'=')?;
        self.at += 1;
        if self.peek(0) != b'"' {
            return None;
        }
        self.at += 1;
        let value = self.until(|b| b == b'"')?;
        self.at += 1;
        if self.peek(0) != b'>' {
            return None;
        }
        self.at += 1;
        Some(Tag { name, end, empty, attribute: Some((attribute, value)) })
    }

    fn end_of(&mut self, name: &[u8]) -> Option<()> {
        let tag = self.tag(Kind::End)?;
        (tag.name == name).then_some(())
    }

    /// Reads the object whose start tag was read.
    fn object(&mut self, tag: Tag<'a>) -> Option<Ref> {
        let mut open: Vec<Open> = Vec::new();
        let mut tag = tag;
        loop {
            // One object, or the beginning of a collection…
            let mut done = match tag.name {
                b"array" | b"dict" => {
                    if tag.attribute.is_some() {
                        return None;
                    }
                    let is_array = tag.name == b"array";
                    let collection = if is_array {
                        Open::Array(Vec::new())
                    } else {
                        Open::Dictionary(Dictionary::default(), Vec::new())
                    };
                    if tag.empty {
                        Some(close(collection))
                    } else {
                        open.push(collection);
                        None
                    }
                }
                _ => Some(self.scalar(&tag)?),
            };
            // …which ends as many collections as end here.
            loop {
                match (open.pop(), done.take()) {
                    (None, done) => return done,
                    (Some(Open::Array(mut items)), object) => {
                        items.extend(object);
                        open.push(Open::Array(items));
                    }
                    (Some(Open::Dictionary(mut d, key)), object) => {
                        if let Some(object) = object {
                            drop(d.set(&key, object).ok()?);
                        }
                        open.push(Open::Dictionary(d, key));
                    }
                }
                let next = self.tag(Kind::Either)?;
                match open.last_mut()? {
                    Open::Array(_) => {
                        if !next.end {
                            tag = next;
                            break;
                        }
                        if next.name != b"array" {
                            return None;
                        }
                    }
                    Open::Dictionary(_, key) => {
                        if !next.end {
                            if next.name != b"key" || next.empty {
                                return None;
                            }
                            *key = self.text_until_tag()?;
                            if key.len() > MAXKEY {
                                return None;
                            }
                            self.end_of(b"key")?;
                            tag = self.tag(Kind::Start)?;
                            break;
                        }
                        if next.name != b"dict" {
                            return None;
                        }
                    }
                }
                done = open.pop().map(close);
            }
        }
    }

    fn scalar(&mut self, tag: &Tag<'a>) -> Option<Ref> {
        let body = match tag.name {
            b"true" | b"false" => {
                if tag.attribute.is_some() || !tag.empty {
                    return None;
                }
                Body::Bool(tag.name == b"true")
            }
            b"integer" => {
                if tag.attribute.is_some() || tag.empty {
                    return None;
                }
                let number = self.number();
                self.end_of(b"integer")?;
                Body::Number(number)
            }
            b"string" => {
                if tag.empty {
                    return Some(Ref::new(Body::String(vec![0])));
                }
                if tag.attribute.is_some() {
                    return None;
                }
                let mut text = self.text_until_tag()?;
                self.end_of(b"string")?;
                text.push(0);
                Body::String(text)
            }
            b"data" => {
                if tag.empty {
                    return None;
                }
                let size = match tag.attribute {
                    None => None,
                    Some((b"size", size)) => {
                        let mut inner = Reader { text: size, at: 0 };
                        let Number::Unsigned(size) = inner.unsigned() else { return None };
                        if inner.at != inner.text.len() || inner.text.is_empty() {
                            return None;
                        }
                        Some(size)
                    }
                    Some(_) => return None,
                };
                let data = self.data()?;
                if size.is_some_and(|size| size != data.len() as u64) {
                    return None;
                }
                self.end_of(b"data")?;
                Body::Data(data)
            }
            _ => return None,
        };
        Some(Ref::new(body))
    }

    /// Text up to the next tag, its entities resolved.
    fn text_until_tag(&mut self) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        loop {
            match self.peek(0) {
                0 => return None,
                b'<' => return Some(out),
                b'&' => {
                    const ENTITIES: [(&[u8], u8); 5] = [
                        (b"&amp;", b'&'),
                        (b"&lt;", b'<'),
                        (b"&gt;", b'>'),
                        (b"&apos;", b'\''),
                        (b"&quot;", b'"'),
                    ];
                    let (entity, byte) = ENTITIES.iter().find(|(e, _)| self.starts_with(e))?;
                    out.push(*byte);
                    self.at += entity.len();
                }
                byte => {
                    out.push(byte);
                    self.at += 1;
                }
            }
        }
    }

    /// The kernel's number for a text: signed unless it is hexadecimal.
    fn number(&mut self) -> Number {
        if self.peek(0) == b'0' && self.peek(1) == b'x' {
            return self.unsigned();
        }
        // strtoll(3), base 0, which a kernel cannot ask for ERANGE.
        let start = self.at;
        self.skip_strtol_space();
        let negative = self.peek(0) == b'-';
        if negative || self.peek(0) == b'+' {
            self.at += 1;
        }
        let Some(magnitude) = self.digits() else {
            self.at = start;
            return Number::Signed(0);
        };
        Number::Signed(match (negative, i64::try_from(magnitude)) {
            (false, Ok(v)) => v,
            (false, Err(_)) => i64::MAX,
            (true, Ok(v)) => -v,
            (true, Err(_)) => i64::MIN,
        })
    }

    /// strtoull(3), base 0.
    fn unsigned(&mut self) -> Number {
        let start = self.at;
        self.skip_strtol_space();
        match self.digits() {
            Some(v) => Number::Unsigned(u64::try_from(v).unwrap_or(u64::MAX)),
            None => {
                self.at = start;
                Number::Unsigned(0)
            }
        }
    }

    fn skip_strtol_space(&mut self) {
        while matches!(self.peek(0), b' ' | b'\t'..=b'\r') {
            self.at += 1;
        }
    }

    /// Digits with the prefix of their base; None if there is not one. Saturates.
    fn digits(&mut self) -> Option<u128> {
        let mut base = 10;
        if self.peek(0) == b'0' {
            base = 8;
            if matches!(self.peek(1), b'x' | b'X') && self.peek(2).is_ascii_hexdigit() {
                base = 16;
                self.at += 2;
            }
        }
        let mut value: u128 = 0;
        let mut any = false;
        while let Some(digit) = (self.peek(0) as char).to_digit(base) {
            value = (value * u128::from(base) + u128::from(digit)).min(1 << 65);
            any = true;
            self.at += 1;
        }
        any.then_some(value)
    }

    /// Base64 up to the next tag.
    fn data(&mut self) -> Option<Vec<u8>> {
        let text = self.until(|b| b == b'<')?;
        let digits: Vec<u8> = text.iter().copied().filter(|b| !is_space(*b)).collect();
        let padding = digits.iter().rev().take_while(|b| **b == b'=').count();
        let digits = &digits[..digits.len() - padding];
        let expected = match digits.len() % 4 {
            0 => 0,
            2 => 2,
            3 => 1,
            _ => return None,
        };
        if padding != expected {
            return None;
        }
        let mut out = Vec::with_capacity(digits.len() * 3 / 4);
        for chunk in digits.chunks(4) {
            let mut word = 0u32;
            for digit in chunk {
                word = word << 6 | BASE64.iter().position(|b| b == digit)? as u32;
            }
            word <<= 6 * (4 - chunk.len());
            out.extend_from_slice(&word.to_be_bytes()[1..chunk.len()]);
        }
        Some(out)
    }
}

fn close(open: Open) -> Ref {
    Ref::new(match open {
        Open::Array(items) => Body::Array(Mutex::new(Array { items, ..Array::default() })),
        Open::Dictionary(dictionary, _) => Body::Dictionary(Mutex::new(dictionary)),
    })
}

#[cfg(test)]
mod tests;
