// SPDX-License-Identifier: BSD-2-Clause

//! The JSON of a LUKS2 header.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use crate::header::{Af, Area, Digest, Header, Keyslot, Priority, Segment, Slot, Token, Version};
use crate::kdf::{Argon2Kind, Kdf};
use crate::luks1::{AREA, KEY};
use crate::luks2::BINARY;

/// Keyslots that a header may have, and tokens, as in cryptsetup; digests and segments too.
const MANY: usize = 32;
/// Bytes that all keyslots may have together, as in cryptsetup.
const KEYSLOTS: u64 = 128 << 20;
/// Bytes of the longest salt or digest that is taken.
const SALT: usize = 1024;

type Parsed<T> = Result<T, String>;

/// An object, with its place for error messages.
struct Object<'a> {
    map: &'a Map<String, Value>,
    place: String,
}

impl<'a> Object<'a> {
    fn new(value: &'a Value, place: &str) -> Parsed<Object<'a>> {
        let map = value.as_object().ok_or_else(|| format!("{place} is no object"))?;
        Ok(Object { map, place: place.to_string() })
    }

    fn get(&self, key: &str) -> Parsed<&'a Value> {
        self.map.get(key).ok_or_else(|| format!("{} has no {key}", self.place))
    }

    fn object(&self, key: &str) -> Parsed<Object<'a>> {
        Object::new(self.get(key)?, &format!("{key} of {}", self.place))
    }

    fn wrong<T>(&self, key: &str) -> Parsed<T> {
        Err(format!("{key} of {} makes no sense", self.place))
    }

    fn text(&self, key: &str) -> Parsed<String> {
        match self.get(key)?.as_str() {
            Some(text) => Ok(text.to_string()),
            None => self.wrong(key),
        }
    }

    /// A number that fits into 31 bits, as JSON's own.
    fn number(&self, key: &str) -> Parsed<u32> {
        let number = self.get(key)?.as_u64().and_then(|n| i32::try_from(n).ok());
        match number {
            Some(number) => Ok(number.unsigned_abs()),
            None => self.wrong(key),
        }
    }

    /// A number of 64 bits: decimal digits in a string.
    fn large(&self, key: &str) -> Parsed<u64> {
        let text = self.text(key)?;
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        match text.parse() {
            Ok(number) if digits => Ok(number),
            _ => self.wrong(key),
        }
    }

    fn key_bytes(&self, key: &str) -> Parsed<usize> {
        match self.number(key)? {
            bytes @ 1..=KEY => Ok(bytes as usize),
            _ => self.wrong(key),
        }
    }

    /// Bytes, in base 64.
    fn bytes(&self, key: &str) -> Parsed<Vec<u8>> {
        match STANDARD.decode(self.text(key)?) {
            Ok(bytes) if bytes.len() <= SALT => Ok(bytes),
            _ => self.wrong(key),
        }
    }

    fn texts(&self, key: &str) -> Parsed<Vec<String>> {
        let Some(list) = self.map.get(key) else { return Ok(Vec::new()) };
        let texts: Option<Vec<String>> = list
            .as_array()
            .and_then(|list| list.iter().map(|text| text.as_str().map(String::from)).collect());
        texts.ok_or_else(|| format!("{key} of {} makes no sense", self.place))
    }

    /// Numbers of other objects, as strings.
    fn numbers(&self, key: &str) -> Parsed<Vec<u32>> {
        let texts = self.texts(key)?;
        let numbers: Option<Vec<u32>> = texts.iter().map(|text| number(text)).collect();
        match numbers {
            Some(numbers) if numbers.len() <= MANY => Ok(numbers),
            _ => self.wrong(key),
        }
    }

    /// The objects that it holds, by number.
    fn numbered(&self, key: &str, what: &str) -> Parsed<Vec<(u32, Object<'a>)>> {
        let all = self.object(key)?;
        if all.map.len() > MANY {
            return Err(format!("{} {key}, and {MANY} are allowed", all.map.len()));
        }
        let mut found = Vec::new();
        for (name, value) in all.map {
            let number =
                number(name).ok_or_else(|| format!("{name:?} is no number of a {what}"))?;
            found.push((number, Object::new(value, &format!("{what} {number}"))?));
        }
        found.sort_by_key(|(number, _)| *number);
        Ok(found)
    }
}

/// A number as object names have it: no sign, no leading zeros.
fn number(text: &str) -> Option<u32> {
    let number: u32 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

/// Reads the JSON of a header of so many bytes.
///
/// # Errors
/// A message with the mistake.
pub fn parse(text: &[u8], header_bytes: u64) -> Parsed<Header> {
    let all: Value = serde_json::from_slice(text).map_err(|error| format!("its JSON: {error}"))?;
    let all = Object::new(&all, "the JSON")?;
    let config = all.object("config")?;
    let requirements = match config.map.get("requirements") {
        Some(_) => config.object("requirements")?.texts("mandatory")?,
        None => Vec::new(),
    };
    if config.large("json_size")? != header_bytes.saturating_sub(BINARY as u64) {
        return config.wrong("json_size");
    }
    // Behind both copies.
    let begin = header_bytes.saturating_mul(2);
    let keyslots_size = config.large("keyslots_size")?;
    if keyslots_size > KEYSLOTS || !keyslots_size.is_multiple_of(4096) {
        return config.wrong("keyslots_size");
    }
    let keyslots_end = begin.saturating_add(keyslots_size);
    let mut keyslots = Vec::new();
    for (number, object) in all.numbered("keyslots", "keyslot")? {
        let keyslot = keyslot(number, &object)?;
        if let Ok(slot) = &keyslot.slot {
            let end = slot.area.offset.checked_add(slot.area.bytes);
            if slot.area.offset < begin || end.is_none_or(|end| end > keyslots_end) {
                return Err(format!("keyslot {number} lies outside of where keyslots are"));
            }
        }
        keyslots.push(keyslot);
    }
    let digests = all.numbered("digests", "digest")?;
    let segments = all.numbered("segments", "segment")?;
    let tokens = all.numbered("tokens", "token")?;
    let header = Header {
        version: Version::Two,
        uuid: String::new(),
        label: String::new(),
        subsystem: String::new(),
        keyslots,
        digests: digests.iter().map(|(n, object)| digest(*n, object)).collect::<Parsed<_>>()?,
        segments: segments.iter().map(|(n, object)| segment(*n, object)).collect::<Parsed<_>>()?,
        tokens: tokens.iter().map(|(n, object)| token(*n, object)).collect::<Parsed<_>>()?,
        flags: config.texts("flags")?,
        requirements,
        copies: Vec::new(),
    };
    check(&header, keyslots_end)?;
    Ok(header)
}

/// Finds what makes sense by itself, but not together.
fn check(header: &Header, keyslots_end: u64) -> Parsed<()> {
    let mut areas: Vec<_> = header.keyslots.iter().filter_map(|k| k.slot.as_ref().ok()).collect();
    areas.sort_by_key(|slot| slot.area.offset);
    for two in areas.windows(2) {
        if let [one, next] = two
            && one.area.offset.saturating_add(one.area.bytes) > next.area.offset
        {
            return Err("the areas of two keyslots overlap".into());
        }
    }
    for keyslot in &header.keyslots {
        let (number, digests) = (keyslot.number, header.digests_of(keyslot.number).count());
        // Those of other types may do without.
        if digests > 1 || (keyslot.slot.is_ok() && digests == 0) {
            return Err(format!("keyslot {number} has {digests} digests"));
        }
    }
    let is_keyslot = |number: &u32| header.keyslot(*number).is_some();
    let is_segment = |number: &u32| header.segments.iter().any(|s| s.number == *number);
    for digest in &header.digests {
        if !digest.keyslots.iter().all(is_keyslot) || !digest.segments.iter().all(is_segment) {
            return Err(format!("digest {} is of something that is not there", digest.number));
        }
    }
    for token in &header.tokens {
        if !token.keyslots.iter().all(is_keyslot) {
            return Err(format!("token {} is of a keyslot that is not there", token.number));
        }
    }
    for (at, segment) in (0..).zip(&header.segments) {
        if segment.number != at {
            return Err(format!("there is no segment {at}"));
        }
        // A detached header's data may begin anywhere.
        if segment.offset > 0 && segment.offset < keyslots_end {
            return Err(format!("segment {at} lies where keyslots are"));
        }
    }
    Ok(())
}

fn keyslot(number: u32, object: &Object<'_>) -> Parsed<Keyslot> {
    let priority = match object.map.get("priority").map(Value::as_u64) {
        None | Some(Some(1)) => Priority::Normal,
        Some(Some(0)) => Priority::Ignore,
        Some(Some(2)) => Priority::High,
        Some(_) => return object.wrong("priority"),
    };
    let kind = object.text("type")?;
    if kind != "luks2" {
        return Ok(Keyslot { number, priority, slot: Err(kind) });
    }
    let key_bytes = object.key_bytes("key_size")?;
    let af = object.object("af")?;
    if af.text("type")? != "luks1" {
        return af.wrong("type");
    }
    let af = Af { stripes: af.number("stripes")?, hash: af.text("hash")? };
    let area = object.object("area")?;
    if area.text("type")? != "raw" {
        return area.wrong("type");
    }
    let area = Area {
        offset: area.large("offset")?,
        bytes: area.large("size")?,
        cipher: area.text("encryption")?,
        key_bytes: area.key_bytes("key_size")?,
    };
    let split = key_bytes as u64 * u64::from(af.stripes);
    if af.stripes == 0 || split > area.bytes || split > AREA {
        return Err(format!("the stripes of keyslot {number} do not fit into its area"));
    }
    let kdf = kdf(&object.object("kdf")?)?;
    Ok(Keyslot { number, priority, slot: Ok(Slot { key_bytes, kdf, area, af }) })
}

fn kdf(object: &Object<'_>) -> Parsed<Kdf> {
    let kind = object.text("type")?;
    let argon2 = match kind.as_str() {
        "pbkdf2" => {
            return Ok(Kdf::Pbkdf2 {
                hash: object.text("hash")?,
                iterations: object.number("iterations")?,
                salt: object.bytes("salt")?,
            });
        }
        "argon2i" => Argon2Kind::I,
        "argon2id" => Argon2Kind::Id,
        _ => return Ok(Kdf::Other(kind)),
    };
    Ok(Kdf::Argon2 {
        kind: argon2,
        time: object.number("time")?,
        kib: object.number("memory")?,
        lanes: object.number("cpus")?,
        salt: object.bytes("salt")?,
    })
}

fn digest(number: u32, object: &Object<'_>) -> Parsed<Digest> {
    let kind = object.text("type")?;
    if kind != "pbkdf2" {
        return Err(format!("digest {number} is of type {kind:?}"));
    }
    Ok(Digest {
        number,
        keyslots: object.numbers("keyslots")?,
        segments: object.numbers("segments")?,
        hash: object.text("hash")?,
        iterations: object.number("iterations")?,
        salt: object.bytes("salt")?,
        digest: object.bytes("digest")?,
    })
}

fn segment(number: u32, object: &Object<'_>) -> Parsed<Segment> {
    let kind = object.text("type")?;
    let crypt = kind == "crypt";
    let bytes = match object.text("size")?.as_str() {
        "dynamic" => None,
        _ => Some(object.large("size")?),
    };
    let integrity = match object.map.get("integrity") {
        Some(_) => Some(object.object("integrity")?.text("type")?),
        None => None,
    };
    Ok(Segment {
        number,
        offset: object.large("offset")?,
        bytes,
        cipher: if crypt { object.text("encryption")? } else { String::new() },
        iv_offset: if crypt { object.large("iv_tweak")? } else { 0 },
        sector_bytes: if crypt { object.number("sector_size")? } else { 512 },
        integrity,
        flags: object.texts("flags")?,
        kind,
    })
}

fn token(number: u32, object: &Object<'_>) -> Parsed<Token> {
    Ok(Token { number, kind: object.text("type")?, keyslots: object.numbers("keyslots")? })
}
