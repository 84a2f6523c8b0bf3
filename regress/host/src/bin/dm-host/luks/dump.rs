// SPDX-License-Identifier: BSD-2-Clause

//! A header for people, and as JSON.

use std::fmt::Write as _;

use dm_core::refusal::Shown;
use dm_luks::{Header, Kdf, Keyslot, Priority, SECTOR, Segment, Slot, Version};
use serde_json::{Value, json};

use crate::show;

/// The header for people.
pub fn text(header: &Header) -> String {
    let version = match header.version {
        Version::One => 1,
        Version::Two => 2,
    };
    let mut text = format!("LUKS{version}, UUID {}", Shown(&header.uuid));
    for (what, name) in [("label", &header.label), ("subsystem", &header.subsystem)] {
        if !name.is_empty() {
            let _ = write!(text, ", {what} `{}`", Shown(name));
        }
    }
    text.push('\n');
    for (what, names) in [("flags", &header.flags), ("requires", &header.requirements)] {
        if !names.is_empty() {
            let _ = writeln!(text, "{what}: {}", Shown(&names.join(" ")));
        }
    }
    if !header.copies.is_empty() {
        let _ = writeln!(text, "\n{:>8} {:>10} {:>10} {:>8}", "COPY", "AT BYTE", "BYTES", "CHANGE");
    }
    for (number, copy) in header.copies.iter().enumerate() {
        let _ = write!(text, "{:>8} {:>10} ", number + 1, copy.offset);
        match &copy.state {
            Ok((bytes, sequence)) => {
                let used = if copy.used { "  used" } else { "" };
                let _ = writeln!(text, "{bytes:>10} {sequence:>8}{used}");
            }
            Err(why) => {
                let _ = writeln!(text, "damaged: {}", Shown(why));
            }
        }
    }
    let _ =
        writeln!(text, "\n{:>8} {:>12} {:>12} {:>7}  CIPHER", "SEGMENT", "FIRST", "LAST", "BYTES");
    header.segments.iter().for_each(|segment| text.push_str(&segment_text(segment)));
    let _ = writeln!(text, "\n{:>8} {:>5}  {:24} KEY DERIVED BY", "KEYSLOT", "BITS", "CIPHER");
    header.keyslots.iter().for_each(|keyslot| text.push_str(&keyslot_text(header, keyslot)));
    if header.keyslots.is_empty() {
        text.push_str("    none\n");
    }
    if !header.tokens.is_empty() {
        let _ = writeln!(text, "\n{:>8}  TYPE", "TOKEN");
    }
    for token in &header.tokens {
        let _ = writeln!(
            text,
            "{:>8}  {}{}",
            token.number,
            Shown(&token.kind),
            list(", for keyslot", &token.keyslots)
        );
    }
    text
}

/// Numbers behind a word, if there are some.
fn list(word: &str, numbers: &[u32]) -> String {
    let numbers: Vec<_> = numbers.iter().map(u32::to_string).collect();
    match numbers.is_empty() {
        true => String::new(),
        false => format!("{word} {}", numbers.join(" ")),
    }
}

fn segment_text(segment: &Segment) -> String {
    let first = segment.offset / SECTOR;
    let last = match segment.bytes {
        None => "end".to_string(),
        Some(bytes) => {
            let end = segment.offset.saturating_add(bytes) / SECTOR;
            end.saturating_sub(1).to_string()
        }
    };
    let cipher = match segment.kind.as_str() {
        "crypt" => &segment.cipher,
        kind => kind,
    };
    let (number, bytes) = (segment.number, segment.sector_bytes);
    let mut text = format!("{number:>8} {first:>12} {last:>12} {bytes:>7}  {}", Shown(cipher));
    if segment.iv_offset > 0 {
        let _ = write!(text, ", IVs from {}", segment.iv_offset);
    }
    if let Some(kind) = &segment.integrity {
        let _ = write!(text, ", authenticated by {}", Shown(kind));
    }
    if !segment.flags.is_empty() {
        let _ = write!(text, ", {}", Shown(&segment.flags.join(" ")));
    }
    text + "\n"
}

fn keyslot_text(header: &Header, keyslot: &Keyslot) -> String {
    let number = keyslot.number;
    let slot = match &keyslot.slot {
        Ok(slot) => slot,
        Err(kind) => return format!("{number:>8} {:>5}  of type {}\n", "", Shown(kind)),
    };
    let (bits, cipher) = (slot.key_bytes * 8, &slot.area.cipher);
    let mut text = format!("{number:>8} {bits:>5}  {:24} {}", Shown(cipher).to_string(), kdf(slot));
    let opens: Vec<u32> =
        header.digests_of(number).flat_map(|digest| digest.segments.iter().copied()).collect();
    text.push_str(match opens.is_empty() {
        true => "; opens no segment",
        false if header.segments.len() == 1 => "",
        false => "; opens segment",
    });
    if header.segments.len() != 1 {
        text.push_str(&list("", &opens));
    }
    text.push_str(match keyslot.priority {
        Priority::Ignore => "; ignored",
        Priority::Normal => "",
        Priority::High => "; tried first",
    });
    text + "\n"
}

fn kdf(slot: &Slot) -> String {
    match &slot.kdf {
        Kdf::Pbkdf2 { hash, iterations, .. } => {
            format!("pbkdf2 with {}, {iterations} iterations", Shown(hash))
        }
        Kdf::Argon2 { time, kib, lanes, .. } => {
            let name = slot.kdf.name();
            let [passes, lanes] = [(time, "pass", "es"), (lanes, "lane", "s")]
                .map(|(n, one, more)| format!("{n} {one}{}", if *n == 1 { "" } else { more }));
            format!("{name}, {passes} over {kib} KiB in {lanes}")
        }
        Kdf::Other(name) => Shown(name).to_string(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The header as JSON.
pub fn json(header: &Header) -> String {
    let copies = header.copies.iter().map(|copy| {
        let (state, problem) = match &copy.state {
            Ok(state) => (Some(*state), None),
            Err(why) => (None, Some(why)),
        };
        json!({
            "offset_bytes": copy.offset,
            "size_bytes": state.map(|(bytes, _)| bytes),
            "sequence": state.map(|(_, sequence)| sequence),
            "problem": problem,
            "used": copy.used,
        })
    });
    let segments = header.segments.iter().map(|segment| {
        json!({
            "number": segment.number,
            "type": segment.kind,
            "offset_bytes": segment.offset,
            "size_bytes": segment.bytes,
            "cipher": segment.cipher,
            "iv_offset": segment.iv_offset,
            "sector_bytes": segment.sector_bytes,
            "integrity": segment.integrity,
            "flags": segment.flags,
        })
    });
    let digests = header.digests.iter().map(|digest| {
        json!({
            "number": digest.number,
            "keyslots": digest.keyslots,
            "segments": digest.segments,
            "hash": digest.hash,
            "iterations": digest.iterations,
            "salt": hex(&digest.salt),
            "digest": hex(&digest.digest),
        })
    });
    let tokens = header.tokens.iter().map(
        |token| json!({ "number": token.number, "type": token.kind, "keyslots": token.keyslots }),
    );
    show::json::text(&json!({
        "version": match header.version { Version::One => 1, Version::Two => 2 },
        "uuid": header.uuid,
        "label": header.label,
        "subsystem": header.subsystem,
        "flags": header.flags,
        "requirements": header.requirements,
        "copies": copies.collect::<Vec<_>>(),
        "segments": segments.collect::<Vec<_>>(),
        "keyslots": header.keyslots.iter().map(keyslot_json).collect::<Vec<_>>(),
        "digests": digests.collect::<Vec<_>>(),
        "tokens": tokens.collect::<Vec<_>>(),
    }))
}

fn keyslot_json(keyslot: &Keyslot) -> Value {
    let priority = match keyslot.priority {
        Priority::Ignore => 0,
        Priority::Normal => 1,
        Priority::High => 2,
    };
    let number = keyslot.number;
    let slot = match &keyslot.slot {
        Ok(slot) => slot,
        Err(kind) => return json!({ "number": number, "priority": priority, "type": kind }),
    };
    let mut kdf = json!({ "type": slot.kdf.name() });
    match &slot.kdf {
        Kdf::Pbkdf2 { hash, iterations, salt } => {
            kdf["hash"] = hash.as_str().into();
            kdf["iterations"] = (*iterations).into();
            kdf["salt"] = hex(salt).into();
        }
        Kdf::Argon2 { time, kib, lanes, salt, .. } => {
            kdf["passes"] = (*time).into();
            kdf["memory_kib"] = (*kib).into();
            kdf["lanes"] = (*lanes).into();
            kdf["salt"] = hex(salt).into();
        }
        Kdf::Other(_) => {}
    }
    json!({
        "number": number,
        "type": "luks2",
        "priority": priority,
        "key_bits": slot.key_bytes * 8,
        "cipher": slot.area.cipher,
        "cipher_key_bits": slot.area.key_bytes * 8,
        "offset_bytes": slot.area.offset,
        "size_bytes": slot.area.bytes,
        "stripes": slot.af.stripes,
        "hash": slot.af.hash,
        "kdf": kdf,
    })
}
