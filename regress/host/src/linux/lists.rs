// SPDX-License-Identifier: BSD-2-Clause

//! Answers that are lists: structures one after the other, behind `struct dm_ioctl`.

use zeroize::Zeroizing;

use super::abi::{self, at, flag};
use super::plist::{self, Reply, Request};
use super::{Call, Fault, Host, number_in, numbers};
use crate::dev;

impl<H: Host> Call<'_, H> {
    /// The components of a table, by their Linux numbers.
    pub(super) fn deps(&mut self) -> Result<(), Fault> {
        let reply = self.ask(self.request("deps")?)?;
        self.about(&reply)?;
        let mut devs = Vec::new();
        for dev in reply.array("cmd_data").iter().filter_map(plist::number) {
            let (major, minor) = (dev::major(dev), dev::minor(dev));
            let (major, minor) = self.to_linux(major, minor).unwrap_or((major, minor));
            devs.push(abi::encode(major, minor));
        }
        let mut data = (devs.len() as u64).to_le_bytes().to_vec();
        devs.iter().for_each(|dev| data.extend(dev.to_le_bytes()));
        self.answer(&data);
        Ok(())
    }

    /// The lines of a table, and their parameters or states.
    pub(super) fn lines(&mut self, reply: &Reply) -> Result<(), Fault> {
        let lines = reply.array("cmd_data");
        let most = |line| 2 * plist::text(line, "params").len() + abi::SPEC + 16;
        let mut data = Zeroizing::new(Vec::with_capacity(lines.iter().map(most).sum()));
        for line in lines {
            let number = |key| line.as_dictionary().and_then(|d| plist::number(d.get(key)?));
            let begin = data.len();
            data.extend(number("start").unwrap_or(0).to_le_bytes());
            data.extend(number("length").unwrap_or(0).to_le_bytes());
            data.extend([0; 8]);
            let mut kind = plist::text(line, "type").as_bytes().to_vec();
            kind.truncate(abi::TARGET - 1);
            kind.resize(abi::TARGET, 0);
            data.extend(kind);
            for (place, word) in plist::text(line, "params").split(' ').enumerate() {
                if place > 0 {
                    data.push(b' ');
                }
                match numbers(word).and_then(|(major, minor)| self.to_linux(major, minor)) {
                    Some((major, minor)) => data.extend(format!("{major}:{minor}").bytes()),
                    None => data.extend(word.bytes()),
                }
            }
            data.push(0);
            pad(&mut data);
            // Counted from the first line, unlike in a request.
            let next = (data.len() as u32).to_le_bytes();
            abi::put(&mut data, begin + 20, &next);
        }
        abi::put(self.bytes, at::TARGET_COUNT, &(lines.len() as u32).to_le_bytes());
        self.answer(&data);
        Ok(())
    }

    /// All devices, by name.
    pub(super) fn names(&mut self) -> Result<(), Fault> {
        let reply = self.ask(Request::new("names"))?;
        let mut devices = Vec::new();
        for entry in reply.array("cmd_data") {
            let Some(minor) = number_in(entry, "dev") else { continue };
            let mut request = Request::new("info");
            request.number("minor", minor.into());
            let info = self.ask(request)?;
            // It may have gone meanwhile.
            if info.word("flags") & flag::EXISTS != 0 {
                let text = |key| info.text(key).to_owned();
                devices.push((text("name"), minor, info.word("event_nr"), text("uuid")));
            }
        }
        devices.sort();
        let mut data = Vec::new();
        for (place, (name, minor, event, uuid)) in devices.iter().enumerate() {
            let begin = data.len();
            data.extend(abi::encode(self.host.major(), *minor).to_le_bytes());
            data.extend([0; 4]);
            data.extend(name.bytes());
            data.push(0);
            pad(&mut data);
            data.extend(event.to_le_bytes());
            let wanted = self.has(flag::UUID);
            let kind = match (wanted, uuid.is_empty()) {
                (false, _) => 0,
                (true, false) => abi::HAS_UUID,
                (true, true) => abi::HAS_NO_UUID,
            };
            data.extend(u32::to_le_bytes(kind));
            if kind == abi::HAS_UUID {
                data.extend(uuid.bytes());
                data.push(0);
                pad(&mut data);
            }
            if place + 1 < devices.len() {
                let next = (data.len() - begin) as u32;
                abi::put(&mut data, begin + 8, &next.to_le_bytes());
            }
        }
        if devices.is_empty() {
            // The list has one entry, of a device that is none.
            data.extend([0; 16]);
        }
        self.answer(&data);
        Ok(())
    }

    /// The targets and their versions; only that of this name, if one is given.
    pub(super) fn versions(&mut self, only: Option<&str>) -> Result<(), Fault> {
        let reply = self.ask(Request::new("targets"))?;
        let mut data = Vec::new();
        let mut last = None;
        for target in reply.array("cmd_data") {
            let name = plist::text(target, "name");
            if only.is_some_and(|only| only != name) {
                continue;
            }
            let begin = data.len();
            if let Some(last) = last.replace(begin) {
                abi::put(&mut data, last, &((begin - last) as u32).to_le_bytes());
            }
            let parts = target.as_dictionary().and_then(|dict| dict.get("ver")?.as_array());
            data.extend([0; 4]);
            for part in 0..3 {
                let part = parts.and_then(|parts| plist::number(parts.get(part)?)).unwrap_or(0);
                data.extend((part as u32).to_le_bytes());
            }
            data.extend(name.bytes());
            data.push(0);
            pad(&mut data);
        }
        if only.is_some() && data.is_empty() {
            return Err(Fault(libc::EINVAL));
        }
        self.answer(&data);
        Ok(())
    }
}

/// Pads to a multiple of 8 bytes, at which the next structure lies.
fn pad(data: &mut Vec<u8>) {
    data.resize(data.len().next_multiple_of(8), 0);
}
